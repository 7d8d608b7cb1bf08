/* A test program's own few words: each test is a function, a failed CHECK ends the program. */
#ifndef HSMSIGN_CHECK_H
#define HSMSIGN_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            (void)fprintf(stderr, "%s:%d: in %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);  \
            (void)printf("0 passed, 1 failed\n");                                                           \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

#define RUN(test)                                                                                           \
    do {                                                                                                    \
        (void)fprintf(stderr, "%s\n", #test); /* the last one named is the one that failed */               \
        test();                                                                                             \
        passed++;                                                                                           \
    } while (0)

#endif
