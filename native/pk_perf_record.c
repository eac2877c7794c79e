#include "pk_perf_record.h"

#include <linux/perf_event.h>
#include <string.h>

enum {
    REGISTERS_64_BIT = 2,
    SWITCH_OUT_PREEMPTED = 1 << 14, /* PERF_RECORD_MISC_SWITCH_OUT_PREEMPT, Linux 4.17 */
    CODE_IS_EXECUTABLE = 4,         /* PROT_EXEC */
    LOST_SAMPLES = 13,
};

const uint64_t PK_PERF_SAMPLE_FIELDS =
    PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_PERIOD |
    PERF_SAMPLE_CALLCHAIN | PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;

/* ax bx cx dx si di bp sp ip, and r8 to r15 */
const uint64_t PK_PERF_REGISTERS = 0x1FF | 0xFFULL << 16;

/* A place in a record; behind its end all is 0, and has_failed is set and stays. */
typedef struct {
    const uint8_t *at;
    const uint8_t *end;
    bool has_failed;
} place;

static const uint8_t *take(place *from, size_t size)
{
    if ((size_t)(from->end - from->at) < size) {
        from->has_failed = true;
        return NULL;
    }
    const uint8_t *found = from->at;
    from->at += size;
    return found;
}

static uint64_t take_8(place *from)
{
    uint64_t value = 0;
    const uint8_t *found = take(from, sizeof value);
    if (found != NULL) {
        memcpy(&value, found, sizeof value);
    }
    return value;
}

static uint32_t take_4(place *from)
{
    uint32_t value = 0;
    const uint8_t *found = take(from, sizeof value);
    if (found != NULL) {
        memcpy(&value, found, sizeof value);
    }
    return value;
}

/* The text up to its end, or that of the record. */
static void take_text(place *from, pk_perf_record *ret)
{
    size_t left = (size_t)(from->end - from->at);
    ret->text = (const char *)from->at;
    ret->text_bytes = strnlen(ret->text, left);
    from->at = from->end;
}

/* Addresses of the kernel alone: the markers between parts of a chain are no addresses. */
static void take_chain(place *from, pk_perf_record *ret)
{
    uint64_t count = take_8(from);
    if (count > (size_t)(from->end - from->at) / 8) {
        from->has_failed = true;
        return;
    }
    const uint64_t *chain = (const uint64_t *)(const void *)take(from, (size_t)count * 8);
    size_t first = count > 0 && chain[0] >= (uint64_t)PERF_CONTEXT_MAX ? 1 : 0;
    size_t depth = 0;
    while (first + depth < count && chain[first + depth] < (uint64_t)PERF_CONTEXT_MAX &&
           depth < PK_PERF_KERNEL_DEPTH_LIMIT) {
        depth++;
    }
    bool is_kernel = first == 1 && chain[0] == (uint64_t)PERF_CONTEXT_KERNEL;
    ret->kernel = chain + first;
    ret->kernel_depth = is_kernel ? depth : 0;
}

static void take_registers(place *from, pk_perf_record *ret)
{
    /* In the order in which the kernel writes them, by DWARF's numbers. */
    static const uint8_t order[PK_REGISTER_COUNT] = {
        PK_RAX, PK_RBX, 2, 1, 4, 5, PK_RBP, PK_RSP, PK_RIP, 8, 9, 10, 11, 12, 13, 14, 15};
    uint64_t kind = take_8(from);
    if (kind == 0) {
        return;
    }
    for (size_t i = 0; i < PK_REGISTER_COUNT; i++) {
        ret->registers.values[order[i]] = take_8(from);
    }
    ret->registers.known = kind == REGISTERS_64_BIT ? (1U << PK_REGISTER_COUNT) - 1 : 0;
}

static void take_stack(place *from, pk_perf_record *ret)
{
    uint64_t size = take_8(from);
    if (size == 0) {
        return;
    }
    if (size > PK_PERF_RECORD_BYTES_MAX) {
        from->has_failed = true;
        return;
    }
    ret->stack = take(from, (size_t)size);
    uint64_t filled = take_8(from);
    ret->stack_bytes = (size_t)(filled < size ? filled : size);
}

static void parse_sample(place *from, pk_perf_record *ret)
{
    ret->kind = PK_PERF_SAMPLE;
    ret->pid = (pid_t)take_4(from);
    ret->tid = (pid_t)take_4(from);
    ret->time_ns = (int64_t)take_8(from);
    ret->cpu = (int32_t)take_4(from);
    (void)take_4(from);
    ret->weight_ns = (int64_t)take_8(from);
    take_chain(from, ret);
    take_registers(from, ret);
    take_stack(from, ret);
}

/* What stands at the end of all records but samples: thread, time, CPU. */
static void parse_trailer(place *from, pk_perf_record *ret)
{
    enum { TRAILER_BYTES = 24 };
    if (from->end - from->at < TRAILER_BYTES) {
        from->has_failed = true;
        return;
    }
    place trailer = {from->end - TRAILER_BYTES, from->end, false};
    ret->pid = (pid_t)take_4(&trailer);
    ret->tid = (pid_t)take_4(&trailer);
    ret->time_ns = (int64_t)take_8(&trailer);
    ret->cpu = (int32_t)take_4(&trailer);
    from->end -= TRAILER_BYTES;
}

static void parse_mapping(place *from, pk_perf_record *ret)
{
    static const char vdso[] = "[vdso]";
    pk_mapping *mapping = &ret->mapping;
    ret->pid = (pid_t)take_4(from);
    ret->tid = (pid_t)take_4(from);
    mapping->start = take_8(from);
    mapping->end = mapping->start + take_8(from);
    mapping->offset = take_8(from);
    uint64_t major = take_4(from);
    mapping->device = major << 32 | take_4(from);
    mapping->inode = take_8(from);
    (void)take_8(from); /* generation of the inode */
    uint32_t protection = take_4(from);
    (void)take_4(from);
    take_text(from, ret);
    mapping->kind = mapping->inode != 0 ? PK_MAPPING_FILE : PK_MAPPING_ANONYMOUS;
    if (ret->text_bytes == sizeof vdso - 1 && memcmp(ret->text, vdso, sizeof vdso - 1) == 0) {
        mapping->kind = PK_MAPPING_VDSO;
    }
    ret->kind = (protection & CODE_IS_EXECUTABLE) != 0 ? PK_PERF_MAPPING : PK_PERF_OTHER;
}

static void parse_task(place *from, pk_perf_kind kind, pk_perf_record *ret)
{
    ret->kind = kind;
    ret->pid = (pid_t)take_4(from);
    ret->parent = (pid_t)take_4(from);
    ret->tid = (pid_t)take_4(from);
}

bool pk_perf_record_parse(const uint8_t *bytes, size_t size, pk_perf_record *ret)
{
    struct perf_event_header header;
    memset(ret, 0, sizeof *ret);
    ret->kind = PK_PERF_OTHER;
    if (size < sizeof header) {
        return false;
    }
    memcpy(&header, bytes, sizeof header);
    place from = {bytes + sizeof header, bytes + size, false};
    if (header.type == PERF_RECORD_SAMPLE) {
        parse_sample(&from, ret);
        return !from.has_failed;
    }
    parse_trailer(&from, ret);
    switch (header.type) {
    case PERF_RECORD_MMAP2:
        parse_mapping(&from, ret);
        break;
    case PERF_RECORD_COMM:
        ret->kind = PK_PERF_NAME;
        ret->pid = (pid_t)take_4(&from);
        ret->tid = (pid_t)take_4(&from);
        take_text(&from, ret);
        ret->is_exec = (header.misc & PERF_RECORD_MISC_COMM_EXEC) != 0;
        break;
    case PERF_RECORD_FORK:
        parse_task(&from, PK_PERF_BIRTH, ret);
        break;
    case PERF_RECORD_EXIT:
        parse_task(&from, PK_PERF_DEATH, ret);
        break;
    case PERF_RECORD_SWITCH:
    case PERF_RECORD_SWITCH_CPU_WIDE: /* the thread itself is named at the end */
        ret->kind = PK_PERF_SWITCH;
        ret->is_leaving = (header.misc & PERF_RECORD_MISC_SWITCH_OUT) != 0;
        ret->is_preempted = (header.misc & SWITCH_OUT_PREEMPTED) != 0;
        break;
    case PERF_RECORD_LOST:
        ret->kind = PK_PERF_LOST;
        (void)take_8(&from); /* of which event: there is one */
        ret->lost_count = (int64_t)take_8(&from);
        break;
    case LOST_SAMPLES:
        ret->kind = PK_PERF_LOST;
        ret->lost_count = (int64_t)take_8(&from);
        break;
    default:
        break;
    }
    return !from.has_failed;
}
