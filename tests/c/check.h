// SPDX-License-Identifier: Apache-2.0
// What the C test programs share: a check that says what it was about.
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm_disagg.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_STATUS(call, expected)                                                               \
    do {                                                                                           \
        disagg_status got_ = (call);                                                               \
        if (got_ != (expected)) {                                                                  \
            fprintf(stderr, "%s:%d: %s: %s, not %s\n", __FILE__, __LINE__, #call,                  \
                    disagg_status_text(got_), disagg_status_text(expected));                       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_OK(call) CHECK_STATUS(call, DISAGG_STATUS_OK)

#define CHECK_TEXT(got, expected)                                                                  \
    do {                                                                                           \
        const char *got_ = (got);                                                                  \
        if (got_ == NULL || strcmp(got_, (expected)) != 0) {                                       \
            fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #got,         \
                    got_ != NULL ? got_ : "NULL", (expected));                                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#endif
