/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz: the one function that every fuzzer defines. libFuzzer calls it with inputs that it invents, replay_main.c with
 * the files of the corpus. Returns 0; a finding is an abort or a sanitizer's report.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#endif
