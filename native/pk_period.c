#include "pk_period.h"

static const double JITTER_RATIO = 0.03;
static const double CHANGE_RATIO = 0.1; /* smaller changes are not worth an interval begun anew */
static const double GROWTH_MAX = 4;
static const double SHRINK_MIN = 0.5;
static const double FIRST_COST = 4;
static const int64_t ADAPT_EVERY_NS = 500LL * 1000 * 1000;
static const int64_t SET_EVERY_NS = 2000LL * 1000 * 1000;
static const int64_t REPAY_NS = 2000LL * 1000 * 1000;
static const int64_t INTERVAL_LIMIT_NS = 1000LL * 1000 * 1000;

void pk_period_init(pk_period *period, int64_t base_interval_ns, double budget_ratio,
                    int64_t now_ns)
{
    *period = (pk_period){
        .base_interval_ns = base_interval_ns,
        .interval_ns = base_interval_ns,
        .budget_ratio = budget_ratio,
        .started_ns = now_ns,
        .adapted_ns = now_ns,
        .set_ns = now_ns,
        .budget_since_ns = now_ns,
        .counted_ns = now_ns,
        .random = (uint64_t)now_ns | 1,
    };
}

void pk_period_set_budget(pk_period *period, double budget_ratio, int64_t spent_ns, int64_t now_ns)
{
    if (budget_ratio < period->budget_ratio || budget_ratio > period->budget_ratio) {
        period->budget_ratio = budget_ratio;
        period->budget_since_ns = now_ns;
        period->budget_spent_ns = spent_ns;
    }
}

/* xorshift64: uniform in [-1, 1). */
static double next_random(pk_period *period)
{
    uint64_t x = period->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    period->random = x;
    return (double)(x >> 11) / (double)(1ULL << 52) - 1.0;
}

/* What may be spent from now on, so that within REPAY_NS the mean since the budget was set is the
 * budget. */
static double allowed_ratio(const pk_period *period, int64_t spent_ns, int64_t now_ns)
{
    double horizon_ns = (double)(now_ns - period->budget_since_ns + REPAY_NS);
    double spent_since_ns = (double)(spent_ns - period->budget_spent_ns);
    double ratio = (period->budget_ratio * horizon_ns - spent_since_ns) / (double)REPAY_NS;
    double low = period->budget_ratio / 4;
    double high = period->budget_ratio;
    return ratio < low ? low : ratio > high ? high : ratio;
}

bool pk_period_adapt(pk_period *period, int64_t spent_ns, int64_t now_ns)
{
    period->slot_count += (double)(now_ns - period->counted_ns) / (double)period->interval_ns;
    period->counted_ns = now_ns;
    int64_t passed_ns = now_ns - period->adapted_ns;
    if (passed_ns < ADAPT_EVERY_NS) {
        return false;
    }
    double used_ratio = (double)(spent_ns - period->adapted_spent_ns) / (double)passed_ns;
    double factor = used_ratio / allowed_ratio(period, spent_ns, now_ns);
    /* At first files and mappings are read, each once: the more is saved later on. */
    factor /= period->adapted_ns == period->started_ns ? FIRST_COST : 1;
    period->adapted_ns = now_ns;
    period->adapted_spent_ns = spent_ns;
    factor = factor > GROWTH_MAX ? GROWTH_MAX : factor < SHRINK_MIN ? SHRINK_MIN : factor;
    double wanted_ns = factor * (double)period->interval_ns;
    int64_t interval_ns = wanted_ns > (double)INTERVAL_LIMIT_NS ? INTERVAL_LIMIT_NS
                                                                : (int64_t)wanted_ns;
    if (interval_ns < period->base_interval_ns) {
        interval_ns = period->base_interval_ns;
    }
    int64_t change_ns = interval_ns - period->interval_ns;
    double least_ns = CHANGE_RATIO * (double)period->interval_ns;
    bool is_base = interval_ns == period->base_interval_ns && change_ns != 0;
    if (!is_base && (double)change_ns < least_ns && (double)-change_ns < least_ns) {
        interval_ns = period->interval_ns;
    }
    bool has_changed = interval_ns != period->interval_ns;
    period->interval_ns = interval_ns;
    if (!has_changed && now_ns - period->set_ns < SET_EVERY_NS) {
        return false;
    }
    period->set_ns = now_ns;
    return true;
}

int64_t pk_period_draw(pk_period *period)
{
    return period->interval_ns +
           (int64_t)(JITTER_RATIO * next_random(period) * (double)period->interval_ns);
}
