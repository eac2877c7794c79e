/* Records as the kernel lays them out, for pk_perf_ring. */
#ifndef PK_PERF_RECORD_H
#define PK_PERF_RECORD_H
#include "pk_perf_ring.h"

/* What the kernel is asked to write; pk_perf_record_parse expects exactly this. */
extern const uint64_t PK_PERF_SAMPLE_FIELDS;
extern const uint64_t PK_PERF_REGISTERS;

/* Parses a record of `size` bytes, aligned to 8. False: damaged. */
bool pk_perf_record_parse(const uint8_t *bytes, size_t size, pk_perf_record *ret);

#endif
