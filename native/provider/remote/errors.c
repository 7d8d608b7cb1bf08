#include "errors.h"

#include <openssl/err.h>
#include <stdio.h>

void hsm_errors_set_aside(struct hsm_errors_aside *aside)
{
    aside->count = 0;
    while (aside->count < HSM_ERRORS_MAX) {
        struct hsm_error_aside *error = &aside->errors[aside->count];
        const char *data = NULL;
        int flags = 0;
        error->code = ERR_get_error_all(&error->file, &error->line, &error->function, &data, &flags);
        if (error->code == 0)
            break;
        (void)snprintf(error->data, sizeof error->data, "%s", (flags & ERR_TXT_STRING) != 0 ? data : "");
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
