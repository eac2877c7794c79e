#include "pk_procfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* A place in a text that is not terminated. */
typedef struct {
    const char *at;
    const char *end;
} cursor;

static void skip_blanks(cursor *place)
{
    while (place->at < place->end && (*place->at == ' ' || *place->at == '\t')) {
        place->at++;
    }
}

/* Decimal, perhaps signed. Values that do not fit 63 bits are refused. */
static bool take_decimal(cursor *place, int64_t *ret)
{
    skip_blanks(place);
    bool negative = place->at < place->end && *place->at == '-';
    const char *at = place->at + (negative ? 1 : 0);
    const char *first = at;
    int64_t value = 0;
    while (at < place->end && *at >= '0' && *at <= '9') {
        int64_t digit = *at - '0';
        if (value > (INT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
        at++;
    }
    if (at == first) {
        return false;
    }
    place->at = at;
    *ret = negative ? -value : value;
    return true;
}

static int hex_digit(char letter)
{
    if (letter >= '0' && letter <= '9') {
        return letter - '0';
    }
    if (letter >= 'a' && letter <= 'f') {
        return letter - 'a' + 10;
    }
    return -1;
}

/* "0x" and 1 to 16 hex digits; all 64 bits are kept, the highest becomes the sign. */
static bool take_hex(cursor *place, int64_t *ret)
{
    skip_blanks(place);
    if (place->end - place->at < 3 || place->at[0] != '0' || place->at[1] != 'x') {
        return false;
    }
    const char *at = place->at + 2;
    uint64_t value = 0;
    int count = 0;
    while (at < place->end && count < 16 && hex_digit(*at) >= 0) {
        value = value << 4 | (uint64_t)hex_digit(*at);
        at++;
        count++;
    }
    if (count == 0 || (at < place->end && hex_digit(*at) >= 0)) {
        return false;
    }
    place->at = at;
    memcpy(ret, &value, sizeof *ret);
    return true;
}

int pk_procfile_parse_schedstat(const char *text, size_t size, pk_schedstat *ret)
{
    cursor place = {text, text + size};
    pk_schedstat found;
    if (!take_decimal(&place, &found.run_ns) || !take_decimal(&place, &found.wait_ns) ||
        !take_decimal(&place, &found.slice_count)) {
        return EBADMSG;
    }
    *ret = found;
    return 0;
}

int pk_procfile_parse_syscall(const char *text, size_t size, pk_syscall *ret)
{
    static const char running[] = "running";
    pk_syscall found = {0};
    if (size >= sizeof running - 1 && memcmp(text, running, sizeof running - 1) == 0) {
        found.number = PK_SYSCALL_RUNNING;
        *ret = found;
        return 0;
    }
    cursor place = {text, text + size};
    if (!take_decimal(&place, &found.number) || found.number < PK_SYSCALL_NOT_IN_SYSCALL) {
        return EBADMSG;
    }
    for (int i = 0; found.number >= 0 && i < 6; i++) {
        if (!take_hex(&place, &found.arguments[i])) {
            return EBADMSG;
        }
    }
    if (!take_hex(&place, &found.stack_pointer) ||
        !take_hex(&place, &found.program_counter)) {
        return EBADMSG;
    }
    *ret = found;
    return 0;
}

/* A name may hold spaces and brackets: it lies between the first "(" and the last ")". */
static bool take_name(cursor *place, char name[PK_NAME_BYTES])
{
    size_t size = (size_t)(place->end - place->at);
    const char *open = memchr(place->at, '(', size);
    const char *close = memrchr(place->at, ')', size);
    if (open == NULL || close == NULL || close < open) {
        return false;
    }
    size_t length = (size_t)(close - open - 1);
    memset(name, 0, PK_NAME_BYTES);
    memcpy(name, open + 1, length < PK_NAME_BYTES ? length : PK_NAME_BYTES);
    place->at = close + 1;
    return true;
}

int pk_procfile_parse_stat(const char *text, size_t size, pk_stat *ret)
{
    enum { FIRST_NUMBER = 4, LAST_NUMBER = 41 }; /* fields as proc(5) counts them, from 1 */
    cursor place = {text, text + size};
    pk_stat found;
    if (!take_name(&place, found.name)) {
        return EBADMSG;
    }
    skip_blanks(&place);
    if (place.at == place.end) {
        return EBADMSG;
    }
    found.state_letter = (unsigned char)*place.at++;
    int64_t fields[LAST_NUMBER + 1];
    for (int i = FIRST_NUMBER; i <= LAST_NUMBER; i++) {
        /* Addresses and limits (unsigned 64 bits) may overflow: none of them is wanted. */
        if (!take_decimal(&place, &fields[i])) {
            skip_blanks(&place);
            const char *first = place.at;
            while (place.at < place.end && *place.at >= '0' && *place.at <= '9') {
                place.at++;
            }
            if (place.at == first) {
                return EBADMSG;
            }
            fields[i] = -1;
        }
    }
    found.minor_faults = fields[10];
    found.major_faults = fields[12];
    found.nice = fields[19];
    found.start_ticks = fields[22];
    found.cpu = fields[39];
    found.policy = fields[41];
    *ret = found;
    return 0;
}

/* The value of a line "key value"; -1 where there is none. */
static int64_t line_value(const char *text, size_t size, const char *key)
{
    size_t key_size = strlen(key);
    const char *end = text + size;
    const char *line = text;
    while (line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        stop = stop == NULL ? end : stop;
        cursor place = {line + key_size, stop};
        int64_t value;
        if ((size_t)(stop - line) > key_size && memcmp(line, key, key_size) == 0 &&
            line[key_size] == ' ' && take_decimal(&place, &value)) {
            return value;
        }
        line = stop + 1;
    }
    return -1;
}

int pk_procfile_parse_cpu_stat(const char *text, size_t size, pk_cpu_stat *ret)
{
    ret->period_count = line_value(text, size, "nr_periods");
    ret->throttled_count = line_value(text, size, "nr_throttled");
    ret->throttled_ns = line_value(text, size, "throttled_time"); /* version 1: ns */
    int64_t throttled_us = line_value(text, size, "throttled_usec"); /* version 2 */
    if (ret->throttled_ns < 0 && throttled_us >= 0 && throttled_us <= INT64_MAX / 1000) {
        ret->throttled_ns = throttled_us * 1000;
    }
    return 0;
}

int64_t pk_procfile_parse_inode(const char *link, size_t size)
{
    static const char *const kinds[] = {"socket:[", "pipe:["};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t length = strlen(kinds[i]);
        if (size <= length || memcmp(link, kinds[i], length) != 0) {
            continue;
        }
        cursor place = {link + length, link + size};
        int64_t inode;
        if (*place.at >= '0' && *place.at <= '9' && take_decimal(&place, &inode) &&
            place.at < place.end && *place.at == ']') {
            return inode;
        }
    }
    return 0;
}

int32_t pk_procfile_parse_id(const char *name)
{
    int32_t value = 0;
    for (; *name >= '0' && *name <= '9'; name++) {
        if (value > (1 << 30) / 10) {
            return 0;
        }
        value = value * 10 + (*name - '0');
    }
    return *name == '\0' ? value : 0;
}

int pk_procfile_read(int descriptor, char *buffer, size_t limit, size_t *ret)
{
    for (;;) {
        ssize_t size = pread(descriptor, buffer, limit, 0);
        if (size >= 0) {
            *ret = (size_t)size;
            return 0;
        }
        if (errno != EINTR) {
            return errno;
        }
    }
}

int pk_procfile_read_at(int folder, const char *path, char *buffer, size_t limit, size_t *ret)
{
    int descriptor = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return errno;
    }
    int error = pk_procfile_read(descriptor, buffer, limit, ret);
    close(descriptor);
    return error;
}
