#include "pk_socket_pace.h"

static const double LISTING_RATIO = 0.002; /* of one core */
static const double LISTING_SAVED_NS = 12e6; /* at most, and to begin with */
static const double READ_SHARE_MIN = 0.4;  /* of the budget, however dear listings are */
static const double SMOOTHING_RATIO = 0.125;
static const int64_t SLOWEST_INTERVAL_NS = 250000000; /* one poll a block */
enum { READ_LIMIT_MIN = 32 };

void pk_socket_pace_init(struct pk_socket_pace *pace, int64_t base_interval_ns,
                         uint32_t read_limit_max, double budget_ratio)
{
    *pace = (struct pk_socket_pace){
        .base_interval_ns = base_interval_ns,
        .read_limit_max = read_limit_max,
        .budget_ratio = budget_ratio,
        .listing_left_ns = LISTING_SAVED_NS,
        .interval_ns = base_interval_ns,
        .read_limit = read_limit_max,
    };
}

void pk_socket_pace_account_listing(struct pk_socket_pace *pace, int64_t now_ns, int64_t cpu_ns,
                                    int64_t least_interval_ns)
{
    const double passed_ns = (double)(now_ns - pace->listing_booked_ns);
    const double saved_ns = pace->listing_left_ns + LISTING_RATIO * passed_ns;
    pace->listing_booked_ns = now_ns;
    pace->listing_cost_ns = cpu_ns;
    pace->listing_left_ns =
        (saved_ns < LISTING_SAVED_NS ? saved_ns : LISTING_SAVED_NS) - (double)cpu_ns;
    const double missing_ns = pace->listing_left_ns < 0 ? -pace->listing_left_ns : 0;
    pace->listing_due_ns = now_ns + (int64_t)(missing_ns / LISTING_RATIO);
    const double ratio = (double)cpu_ns / (double)least_interval_ns;
    pace->listing_ratio = ratio < LISTING_RATIO ? ratio : LISTING_RATIO;
}

bool pk_socket_pace_has_saved(const struct pk_socket_pace *pace)
{
    return pace->listing_left_ns > 2.0 * (double)pace->listing_cost_ns;
}

/* The share of a core that reading may take. */
static double to_read_ratio(const struct pk_socket_pace *pace)
{
    const double left = pace->budget_ratio - pace->listing_ratio;
    const double least = pace->budget_ratio * READ_SHARE_MIN;
    return left > least ? left : least;
}

void pk_socket_pace_account_poll(struct pk_socket_pace *pace, int64_t cpu_ns, uint32_t read_count,
                                 uint32_t known_count)
{
    const double cost_ns = (double)cpu_ns / (read_count > 0 ? read_count : 1);
    if (pace->read_cost_ns <= 0) {
        pace->read_cost_ns = cost_ns;
    } else {
        pace->read_cost_ns += SMOOTHING_RATIO * (cost_ns - pace->read_cost_ns);
    }
    const uint32_t wanted = known_count < pace->read_limit_max ? known_count : pace->read_limit_max;
    const double wanted_ns =
        pace->read_cost_ns * (wanted > 0 ? wanted : 1) / to_read_ratio(pace);
    const double slowest_ns = (double)SLOWEST_INTERVAL_NS;
    pace->read_limit = pace->read_limit_max;
    if (wanted_ns > slowest_ns) {
        pace->interval_ns = SLOWEST_INTERVAL_NS;
        const double paid = wanted * slowest_ns / wanted_ns;
        const uint32_t least =
            pace->read_limit_max < READ_LIMIT_MIN ? pace->read_limit_max : READ_LIMIT_MIN;
        pace->read_limit = paid > least ? (uint32_t)paid : least;
    } else {
        pace->interval_ns = wanted_ns > (double)pace->base_interval_ns ? (int64_t)wanted_ns
                                                                       : pace->base_interval_ns;
    }
}
