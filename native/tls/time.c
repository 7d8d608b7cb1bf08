#include "time.h"

#include <time.h>

int64_t hsm_time_of(const ASN1_TIME *time)
{
    struct tm parts = {0};
    if (time == NULL || !ASN1_TIME_to_tm(time, &parts))
        return 0;
    return (int64_t)timegm(&parts);
}
