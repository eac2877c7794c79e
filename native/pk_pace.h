/* When the next tick is due, so that ticks cost no more than a share of one core.
 *
 * Slots lie on an absolute grid of `interval_ns`; each tick is moved by up to +-20 % of it, so that
 * a periodic target is not met in the same phase for ever, and the mean rate stays. The interval
 * grows where the budget does not pay for the base rate. Pure: no clock is read here. */
#ifndef PK_PACE_H
#define PK_PACE_H
#include <stdint.h>

typedef struct {
    int64_t base_interval_ns;
    double budget_ratio;
    int64_t started_ns;
    int64_t interval_ns;
    int64_t slot_ns;
    int64_t adapted_ns;
    int64_t interval_limit_ns; /* ticks never come more rarely than this */
    int64_t budget_since_ns;   /* what was spent before is the owner's to reckon with */
    int64_t budget_spent_ns;   /* of `spent_ns`, since then */
    double tick_cost_ns; /* smoothed; 0 before the first estimate */
    int64_t spent_ns;
    int64_t tick_count;
    uint64_t random;
} pk_pace;

void pk_pace_init(pk_pace *pace, int64_t base_interval_ns, double budget_ratio, int64_t now_ns);

/* Gives another share from now on; the same one again changes nothing. What the share before did
 * not pay for is not paid back: whoever sets it has watched that. */
void pk_pace_set_budget(pk_pace *pace, double budget_ratio, int64_t now_ns);

/* The instant of the next tick; slots already past are skipped. It may lie slightly before now. */
int64_t pk_pace_next(pk_pace *pace, int64_t now_ns);

/* Books the CPU of one tick. A tick that met new threads is not typical: it is paid for, but does
 * not enter the estimate, `typical` = 0. */
void pk_pace_account(pk_pace *pace, int64_t now_ns, int64_t cpu_ns, int typical);

/* Slots of the base rate that have passed without a tick. */
int64_t pk_pace_missed_count(const pk_pace *pace, int64_t now_ns);

#endif
