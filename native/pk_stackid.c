#include "pk_stackid.h"

#include <sys/random.h>
#include <time.h>

pk_scatter pk_scatter_draw(void)
{
    pk_scatter drawn;
    if (getrandom(&drawn, sizeof drawn, GRND_NONBLOCK) != (ssize_t)sizeof drawn) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        drawn.of_low = ((uint64_t)now.tv_nsec << 32 ^ (uintptr_t)&now) * 0x9e3779b97f4a7c15;
        drawn.of_high = drawn.of_low * 0x9e3779b97f4a7c15 + (uint64_t)now.tv_sec;
    }
    drawn.of_low |= 1;
    drawn.of_high |= 1;
    return drawn;
}
