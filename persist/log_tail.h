#ifndef DC_PERSIST_LOG_TAIL_H
#define DC_PERSIST_LOG_TAIL_H
#include "persist/data.h"
struct log_tail;
DC_MUST enum dc_err log_tail_open(struct log_tail **out, struct data *d, uint64_t from);
enum tail_got { TAIL_BYTES, TAIL_NOTHING, TAIL_GONE, TAIL_FAILED };
enum tail_got log_tail_read(struct log_tail *t, uint64_t *lsn, char *to, size_t size, size_t *len);
void log_tail_close(struct log_tail *t);
DC_MUST enum dc_err log_tail_hash(struct data *d, uint64_t lsn, uint64_t *hash);
uint64_t log_tail_oldest(struct data *d);
DC_MUST enum dc_err data_begin_history(struct data *d, const struct histories *chain, const char *fork, size_t len);
#endif
