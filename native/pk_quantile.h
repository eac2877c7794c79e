/* What a histogram says of the values that it counted. */
#ifndef PK_QUANTILE_H
#define PK_QUANTILE_H
#include "pk_histogram.h"

/* The value of a rank from 0 (the least) to count - 1, off by at most pk_quantile_error where that
 * is a normal number within the range. Of others: those below the range count as 0, those above as
 * the extreme of their sign; never beyond min and max but for infinities. */
double pk_quantile_at_rank(const pk_histogram *histogram, uint64_t rank);

/* The value of rank floor(quantile * (count - 1)); NaN where nothing is counted. */
double pk_quantile(const pk_histogram *histogram, double quantile);

/* The largest relative error of the above: tanh(ln 2 / 2^(scale + 1)). */
double pk_quantile_error(const pk_bucketing *mapping);

/* The share of the counted that is at most `value`, exact at bounds of buckets, linear between;
 * NaN where nothing is counted. */
double pk_quantile_share(const pk_histogram *histogram, double value);

#endif
