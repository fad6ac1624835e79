/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * assert: checks of what only a programming error can break.
 *
 * dc_assert stays in every build; dc_debug_assert is for hot paths and disappears with NDEBUG;
 * dc_unreachable ends a switch that handles every value of its enum.
 */
#ifndef DC_BASE_ASSERT_H
#define DC_BASE_ASSERT_H

_Noreturn void dc_assert_failed(const char *expr, const char *file, int line);

#define dc_likely(x)    __builtin_expect(!!(x), 1)
#define dc_unlikely(x)  __builtin_expect(!!(x), 0)

#define dc_assert(expr) (dc_likely(expr) ? (void)0 : dc_assert_failed(#expr, __FILE__, __LINE__))

#ifdef NDEBUG
#    define dc_debug_assert(expr) ((void)0)
#else
#    define dc_debug_assert(expr) dc_assert(expr)
#endif

#define dc_unreachable() dc_assert_failed("unreachable", __FILE__, __LINE__)

#endif
