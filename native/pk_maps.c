#include "pk_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CAPACITY_FIRST = 32 };

void pk_maps_init(pk_maps *maps)
{
    *maps = (pk_maps){.mappings = NULL};
}

void pk_maps_deinit(pk_maps *maps)
{
    free(maps->mappings);
    maps->mappings = NULL;
    maps->count = maps->capacity = 0;
}

void pk_maps_clear(pk_maps *maps)
{
    maps->count = 0;
    maps->last = 0;
}

/* The first mapping that ends above an address. */
static size_t search(const pk_maps *maps, uint64_t address)
{
    size_t low = 0;
    size_t high = maps->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (maps->mappings[middle].end <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool make_room(pk_maps *maps)
{
    if (maps->count < maps->capacity) {
        return true;
    }
    size_t capacity = maps->capacity == 0 ? CAPACITY_FIRST : 2 * maps->capacity;
    if (capacity > PK_MAPPING_LIMIT) {
        return false;
    }
    pk_mapping *grown = realloc(maps->mappings, capacity * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    maps->mappings = grown;
    maps->capacity = capacity;
    return true;
}

int pk_maps_copy(pk_maps *maps, const pk_maps *from)
{
    pk_maps_clear(maps);
    if (from->count > maps->capacity) {
        pk_mapping *grown = realloc(maps->mappings, from->capacity * sizeof *grown);
        if (grown == NULL) {
            maps->dropped_count += (int64_t)from->count;
            return (int)from->count;
        }
        maps->mappings = grown;
        maps->capacity = from->capacity;
    }
    if (from->count > 0) {
        memcpy(maps->mappings, from->mappings, from->count * sizeof *from->mappings);
    }
    maps->count = from->count;
    return 0;
}

/* False: no room. */
static bool insert(pk_maps *maps, size_t place, const pk_mapping *mapping)
{
    if (!make_room(maps)) {
        maps->dropped_count++;
        return false;
    }
    memmove(maps->mappings + place + 1, maps->mappings + place,
            (maps->count - place) * sizeof *mapping);
    maps->mappings[place] = *mapping;
    maps->count++;
    return true;
}

static void drop(pk_maps *maps, size_t first, size_t count)
{
    if (count == 0) {
        return;
    }
    memmove(maps->mappings + first, maps->mappings + first + count,
            (maps->count - first - count) * sizeof *maps->mappings);
    maps->count -= count;
}

int pk_maps_add(pk_maps *maps, const pk_mapping *mapping)
{
    if (mapping->start >= mapping->end) {
        return 0;
    }
    int dropped_count = 0;
    size_t place = search(maps, mapping->start);
    if (place < maps->count && maps->mappings[place].start < mapping->start) {
        /* What begins below it keeps its lower part, and its upper one if it reaches that far. */
        pk_mapping upper = maps->mappings[place];
        maps->mappings[place].end = mapping->start;
        place++;
        if (upper.end > mapping->end) {
            upper.offset += mapping->end - upper.start;
            upper.start = mapping->end;
            dropped_count += !insert(maps, place, &upper);
        }
    }
    size_t covered = place;
    while (covered < maps->count && maps->mappings[covered].end <= mapping->end) {
        covered++;
    }
    drop(maps, place, covered - place);
    if (place < maps->count && maps->mappings[place].start < mapping->end) {
        maps->mappings[place].offset += mapping->end - maps->mappings[place].start;
        maps->mappings[place].start = mapping->end;
    }
    dropped_count += !insert(maps, place, mapping);
    maps->last = 0;
    return dropped_count;
}

pk_mapping *pk_maps_find(pk_maps *maps, uint64_t address)
{
    if (maps->last < maps->count) {
        pk_mapping *last = &maps->mappings[maps->last];
        if (address >= last->start && address < last->end) {
            return last;
        }
    }
    size_t place = search(maps, address);
    if (place >= maps->count || address < maps->mappings[place].start) {
        return NULL;
    }
    maps->last = place;
    return &maps->mappings[place];
}

/* Digits up to a letter that ends them, which is taken too. */
static bool take_number(const char **at, const char *end, unsigned base, char terminator,
                        uint64_t *ret)
{
    uint64_t value = 0;
    const char *first = *at;
    for (; *at < end && **at != terminator; (*at)++) {
        unsigned char letter = (unsigned char)**at;
        unsigned digit = base;
        if (letter >= '0' && letter <= '9') {
            digit = letter - (unsigned)'0';
        } else if (letter >= 'a' && letter <= 'f') {
            digit = letter - (unsigned)'a' + 10;
        }
        if (digit >= base || value > (UINT64_MAX - digit) / base) {
            return false;
        }
        value = value * base + digit;
    }
    if (*at == first || *at >= end) {
        return false;
    }
    (*at)++;
    *ret = value;
    return true;
}

int pk_maps_parse_line(const char *line, size_t size, pk_mapping *ret, const char **ret_path,
                       size_t *ret_path_bytes, bool *ret_executable)
{
    static const char vdso[] = "[vdso]";
    const char *at = line;
    const char *end = line + size;
    pk_mapping found = {.state = PK_MAPPING_UNSEEN};
    uint64_t major;
    uint64_t minor;
    if (!take_number(&at, end, 16, '-', &found.start) ||
        !take_number(&at, end, 16, ' ', &found.end) || end - at < 5 || at[4] != ' ') {
        return EBADMSG;
    }
    *ret_executable = at[2] == 'x';
    at += 5;
    if (!take_number(&at, end, 16, ' ', &found.offset) ||
        !take_number(&at, end, 16, ':', &major) || !take_number(&at, end, 16, ' ', &minor) ||
        major > UINT32_MAX || minor > UINT32_MAX || !take_number(&at, end, 10, ' ', &found.inode)) {
        return EBADMSG;
    }
    while (at < end && *at == ' ') {
        at++;
    }
    *ret_path = at;
    *ret_path_bytes = (size_t)(end - at);
    found.device = major << 32 | minor;
    found.kind = found.inode != 0 ? PK_MAPPING_FILE : PK_MAPPING_ANONYMOUS;
    if (found.inode == 0 && *ret_path_bytes == sizeof vdso - 1 &&
        memcmp(at, vdso, sizeof vdso - 1) == 0) {
        found.kind = PK_MAPPING_VDSO;
    }
    *ret = found;
    return 0;
}

int pk_maps_visit(int descriptor, bool (*visit)(void *context, const char *line, size_t size),
                  void *context)
{
    char buffer[2 * PK_MAPS_LINE_BYTES_MAX];
    size_t held = 0;
    for (size_t total = 0; total < PK_MAPS_TEXT_BYTES_MAX;) {
        ssize_t count = read(descriptor, buffer + held, sizeof buffer - held);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return errno;
        }
        total += (size_t)count;
        held += (size_t)count;
        char *line = buffer;
        char *end = buffer + held;
        for (char *stop; (stop = memchr(line, '\n', (size_t)(end - line))) != NULL;) {
            if (!visit(context, line, (size_t)(stop - line))) {
                return 0;
            }
            line = stop + 1;
        }
        held = (size_t)(end - line);
        if (held > PK_MAPS_LINE_BYTES_MAX) { /* no line of the kernel's is that long */
            return EBADMSG;
        }
        memmove(buffer, line, held);
        if (count == 0) {
            return 0;
        }
    }
    return EFBIG;
}

static bool add_line(void *context, const char *line, size_t size)
{
    pk_mapping mapping;
    const char *path;
    size_t path_bytes;
    bool is_executable;
    if (pk_maps_parse_line(line, size, &mapping, &path, &path_bytes, &is_executable) == 0 &&
        is_executable) {
        (void)pk_maps_add(context, &mapping); /* counts what it drops */
    }
    return true;
}

int pk_maps_read(pk_maps *maps, int proc, pid_t pid)
{
    char path[32];
    (void)snprintf(path, sizeof path, "%d/maps", (int)pid);
    int descriptor = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return errno;
    }
    pk_maps_clear(maps);
    int error = pk_maps_visit(descriptor, add_line, maps);
    close(descriptor);
    return error;
}
