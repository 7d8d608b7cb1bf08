/* The thread's OpenSSL error queue belongs to the application: what stands in it is set aside while libssl works for
 * us (its handshake empties the queue), and put back afterwards. */
#ifndef HSMSIGN_REMOTE_ERRORS_H
#define HSMSIGN_REMOTE_ERRORS_H

#define HSM_ERRORS_MAX 16 /* as many as OpenSSL keeps */

struct hsm_error_aside {
    unsigned long code;
    int line;
    char file[96], function[64], data[128];
};

struct hsm_errors_aside {
    int count;
    struct hsm_error_aside errors[HSM_ERRORS_MAX];
};

void hsm_errors_set_aside(struct hsm_errors_aside *aside);

/* Ours are forgotten. */
void hsm_errors_put_back(const struct hsm_errors_aside *aside);

#endif
