/* How often a service's sockets are polled, how many of them a poll reads, and when all sockets may
 * be listed again, so that polls cost no more than a share of one core. Pure: no clock is read. */
#ifndef PK_SOCKET_PACE_H
#define PK_SOCKET_PACE_H
#include <stdbool.h>
#include <stdint.h>

struct pk_socket_pace {
    int64_t base_interval_ns;
    uint32_t read_limit_max; /* sockets read in one poll */
    double budget_ratio;
    double listing_ratio; /* what listings take of a core, as rare as they are by now */
    double listing_left_ns; /* saved up for listings; below 0: the last one is not paid for yet */
    int64_t listing_booked_ns;
    int64_t listing_cost_ns; /* of the last one */
    double read_cost_ns;  /* of one socket, smoothed; 0 before the first poll */
    int64_t interval_ns;
    uint32_t read_limit;
    int64_t listing_due_ns; /* before it a further listing is not paid for; 0: at once */
};

void pk_socket_pace_init(struct pk_socket_pace *pace, int64_t base_interval_ns,
                         uint32_t read_limit_max, double budget_ratio);

/* Books a listing: the dearer they are, the longer the pauses between them, but a few may follow
 * each other soon. The caller leaves least_interval_ns between two of them in any case. */
void pk_socket_pace_account_listing(struct pk_socket_pace *pace, int64_t now_ns, int64_t cpu_ns,
                                    int64_t least_interval_ns);

/* Whether two listings like the last one could follow each other at once. */
bool pk_socket_pace_has_saved(const struct pk_socket_pace *pace);

/* Books a poll that read read_count sockets of known_count, without its listing, and adapts: polls
 * become rarer down to one a block, and beyond that each reads fewer sockets. */
void pk_socket_pace_account_poll(struct pk_socket_pace *pace, int64_t cpu_ns, uint32_t read_count,
                                 uint32_t known_count);

#endif
