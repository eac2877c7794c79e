/* Functions that take 60, 30 and 10 % of the time, each in a section of its own. */
#ifndef SHARES_H
#define SHARES_H

#define PLACED(name) __attribute__((noinline, noclone, section(#name)))
#define RANGE(name) extern const char __start_##name[], __stop_##name[]

RANGE(heavy);
RANGE(medium);
RANGE(light);

static volatile double result;

static __attribute__((noinline, noclone)) void burn(long loops)
{
    double value = 1;
    for (long i = 0; i < loops; i++) {
        value = value * 1.0000001 + 0.1;
    }
    result = value;
}

PLACED(heavy) static void work_heavily(long unit)
{
    burn(6 * unit);
    result += 1;
}

PLACED(medium) static void work_some(long unit)
{
    burn(3 * unit);
    result += 1;
}

PLACED(light) static void work_little(long unit)
{
    burn(unit);
    result += 1;
}

static void work(long unit)
{
    work_heavily(unit);
    work_some(unit);
    work_little(unit);
}

#endif
