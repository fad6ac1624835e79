/* SPDX-License-Identifier: BSD-3-Clause */
/* collide: pairs of keys that have one position under a seed of zeros, found by trying 2^27 names. */
#ifndef TESTS_SUPPORT_COLLIDE_H
#define TESTS_SUPPORT_COLLIDE_H

enum { COLLIDING_PAIRS = 7 };

static const char *const colliding_keys[COLLIDING_PAIRS][2] = {
    {"{c}9661563", "{c}84503167"},   {"{c}116721737", "{c}121618769"},
    {"{c}1995510", "{c}59329292"},   {"{c}82267319", "{c}123713170"},
    {"{c}10673542", "{c}69918132"},  {"{c}56663305", "{c}128295447"},
    {"{c}93249885", "{c}118055250"},
};

#endif
