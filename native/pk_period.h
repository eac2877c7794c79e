/* How long the interval between the samples of a busy CPU must be, so that taking them in costs no
 * more than a share of a core. Pure: no clock is read here. */
#ifndef PK_PERIOD_H
#define PK_PERIOD_H
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t base_interval_ns;
    int64_t interval_ns; /* that is in force, but for what is added so as not to beat with others */
    double budget_ratio;
    int64_t started_ns;
    int64_t adapted_ns;
    int64_t adapted_spent_ns; /* what had been spent by then */
    int64_t set_ns;
    int64_t budget_since_ns;
    int64_t budget_spent_ns; /* what had been spent when the budget was set */
    double slot_count;       /* intervals that have passed */
    int64_t counted_ns;
    uint64_t random;
} pk_period;

void pk_period_init(pk_period *period, int64_t base_interval_ns, double budget_ratio,
                    int64_t now_ns);

/* Gives another share from now on; the same one again changes nothing. */
void pk_period_set_budget(pk_period *period, double budget_ratio, int64_t spent_ns,
                          int64_t now_ns);

/* Looks at what has been spent so far. True: the interval shall be set anew, since it costs too
 * much, or may cost more, or has been the same for long. */
bool pk_period_adapt(pk_period *period, int64_t spent_ns, int64_t now_ns);

/* The interval in force with up to 3 % added or taken. */
int64_t pk_period_draw(pk_period *period);

#endif
