/* Orders that wait, by their id. Owns nothing. */
#ifndef HSMSIGN_FRONT_TABLE_H
#define HSMSIGN_FRONT_TABLE_H

#include "order.h"

#define HSM_TABLE_CHAINS 4096u /* ids are counted up: the chains fill evenly */

struct order_table {
    struct order *chains[HSM_TABLE_CHAINS];
};

static inline struct order **hsm_table_chain(struct order_table *table, uint64_t id)
{
    return &table->chains[id & (HSM_TABLE_CHAINS - 1)];
}

static inline void hsm_table_add(struct order_table *table, struct order *order)
{
    struct order **chain = hsm_table_chain(table, order->id);
    order->chain = *chain;
    *chain = order;
}

static inline struct order *hsm_table_find(struct order_table *table, uint64_t id)
{
    struct order *order = *hsm_table_chain(table, id);
    while (order != NULL && order->id != id)
        order = order->chain;
    return order;
}

static inline void hsm_table_remove(struct order_table *table, const struct order *order)
{
    struct order **at = hsm_table_chain(table, order->id);
    while (*at != NULL && *at != order)
        at = &(*at)->chain;
    if (*at == order)
        *at = order->chain;
}

#endif
