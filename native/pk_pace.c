#include "pk_pace.h"

static const double JITTER_RATIO = 0.2;
static const double SMOOTHING_RATIO = 0.2;
static const int64_t ADAPT_EVERY_NS = 500 * 1000 * 1000;
static const int64_t EARLY_TICK_COUNT = 8; /* adapt at each of these, not only every 500 ms */
static const int64_t REPAY_NS = 2000LL * 1000 * 1000;
static const int64_t INTERVAL_LIMIT_NS = 500 * 1000 * 1000;

void pk_pace_init(pk_pace *pace, int64_t base_interval_ns, double budget_ratio, int64_t now_ns)
{
    *pace = (pk_pace){
        .base_interval_ns = base_interval_ns,
        .budget_ratio = budget_ratio,
        .started_ns = now_ns,
        .interval_ns = base_interval_ns,
        .slot_ns = now_ns,
        .adapted_ns = now_ns,
        .interval_limit_ns = INTERVAL_LIMIT_NS,
        .budget_since_ns = now_ns,
        .random = (uint64_t)now_ns | 1,
    };
}

void pk_pace_set_budget(pk_pace *pace, double budget_ratio, int64_t now_ns)
{
    if (budget_ratio < pace->budget_ratio || budget_ratio > pace->budget_ratio) {
        pace->budget_ratio = budget_ratio;
        pace->budget_since_ns = now_ns;
        pace->budget_spent_ns = 0;
    }
}

/* xorshift64: uniform in [-1, 1). */
static double next_random(pk_pace *pace)
{
    uint64_t x = pace->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    pace->random = x;
    return (double)(x >> 11) / (double)(1ULL << 52) - 1.0;
}

int64_t pk_pace_next(pk_pace *pace, int64_t now_ns)
{
    pace->slot_ns += pace->interval_ns;
    if (pace->slot_ns <= now_ns) {
        int64_t late = (now_ns - pace->slot_ns) / pace->interval_ns + 1;
        pace->slot_ns += late * pace->interval_ns;
    }
    return pace->slot_ns + (int64_t)(next_random(pace) * JITTER_RATIO * (double)pace->interval_ns);
}

/* What may be spent from now on, as a share of a core, so that within REPAY_NS the mean since the
 * budget was set is the budget: what registering many threads cost is paid back by fewer ticks. */
static double allowed_ratio(const pk_pace *pace, int64_t now_ns)
{
    double horizon_ns = (double)(now_ns - pace->budget_since_ns + REPAY_NS);
    double left_ns = pace->budget_ratio * horizon_ns - (double)pace->budget_spent_ns;
    double ratio = left_ns / (double)REPAY_NS;
    double low = pace->budget_ratio / 4;
    double high = pace->budget_ratio;
    return ratio < low ? low : ratio > high ? high : ratio;
}

static void adapt(pk_pace *pace, int64_t now_ns)
{
    double wanted_ns = pace->tick_cost_ns / allowed_ratio(pace, now_ns);
    int64_t limit_ns = pace->interval_limit_ns;
    int64_t interval_ns = wanted_ns > (double)limit_ns ? limit_ns : (int64_t)wanted_ns;
    if (interval_ns < pace->base_interval_ns) {
        interval_ns = pace->base_interval_ns;
    }
    pace->interval_ns = interval_ns;
    pace->adapted_ns = now_ns;
}

void pk_pace_account(pk_pace *pace, int64_t now_ns, int64_t cpu_ns, int typical)
{
    pace->tick_count++;
    pace->spent_ns += cpu_ns;
    pace->budget_spent_ns += cpu_ns;
    if (pace->tick_cost_ns <= 0) {
        /* The first tick opens every file: about eight times a later one. */
        pace->tick_cost_ns = (double)cpu_ns / (typical ? 1 : 8);
    } else if (typical) {
        pace->tick_cost_ns += SMOOTHING_RATIO * ((double)cpu_ns - pace->tick_cost_ns);
    }
    if (pace->tick_count <= EARLY_TICK_COUNT || now_ns - pace->adapted_ns >= ADAPT_EVERY_NS) {
        adapt(pace, now_ns);
    }
}

int64_t pk_pace_missed_count(const pk_pace *pace, int64_t now_ns)
{
    int64_t planned = (now_ns - pace->started_ns) / pace->base_interval_ns;
    return planned > pace->tick_count ? planned - pace->tick_count : 0;
}
