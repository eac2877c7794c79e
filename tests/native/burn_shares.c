/* Burns CPU for ever in functions that take 60, 30 and 10 % of the time; says first where they lie:
 * "heavy 0x... 0x... medium ...", begin and end. */
#include <stdio.h>
#include <stdlib.h>

#include "shares.h"

#define TELL(name) printf(#name " %p %p ", (void *)__start_##name, (void *)__stop_##name)

enum { LOOPS = 7000 };

int main(void)
{
    TELL(heavy);
    TELL(medium);
    TELL(light);
    puts("");
    fflush(stdout);
    for (;;) {
        long unit = LOOPS + rand() % LOOPS; /* out of step with the sampling */
        work(unit);
    }
}
