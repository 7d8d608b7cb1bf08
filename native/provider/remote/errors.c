#include "errors.h"

#include <openssl/err.h>
#include <stdio.h>

static void copy(char *to, size_t room, const char *from)
{
    (void)snprintf(to, room, "%s", from != NULL ? from : "");
}

void hsm_errors_set_aside(struct hsm_errors_aside *aside)
{
    aside->count = 0;
    while (aside->count < HSM_ERRORS_MAX) {
        struct hsm_error_aside *error = &aside->errors[aside->count];
        const char *file = NULL, *function = NULL, *data = NULL; /* die with the queue */
        int flags = 0;
        error->code = ERR_get_error_all(&file, &error->line, &function, &data, &flags);
        if (error->code == 0)
            break;
        copy(error->file, sizeof error->file, file);
        copy(error->function, sizeof error->function, function);
        copy(error->data, sizeof error->data, (flags & ERR_TXT_STRING) != 0 ? data : NULL);
        aside->count++;
    }
}

void hsm_errors_put_back(const struct hsm_errors_aside *aside)
{
    ERR_clear_error();
    for (int i = 0; i < aside->count; i++) {
        const struct hsm_error_aside *error = &aside->errors[i];
        ERR_new();
        ERR_set_debug(error->file, error->line, error->function);
        if (error->data[0] != '\0')
            ERR_set_error(ERR_GET_LIB(error->code), ERR_GET_REASON(error->code), "%s", error->data);
        else
            ERR_set_error(ERR_GET_LIB(error->code), ERR_GET_REASON(error->code), NULL);
    }
}
