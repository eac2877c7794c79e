#include "pk_perf_record.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Less where so much memory is refused, as long as two samples fit. */
static int map_ring(pk_perf_ring *ring, const pk_perf_plan *plan)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    int error = EINVAL;
    for (size_t count = plan->page_count;
         count >= PK_PERF_PAGES_MIN && count * page_bytes > 2 * (size_t)plan->stack_bytes;
         count /= 2) {
        ring->mapped_bytes = (count + 1) * page_bytes;
        ring->mapped = mmap(NULL, ring->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                            ring->descriptor, 0);
        if (ring->mapped != MAP_FAILED) {
            ring->bytes = (const uint8_t *)ring->mapped + page_bytes;
            ring->size_bytes = count * page_bytes;
            return 0;
        }
        error = errno;
        ring->mapped = NULL;
        if (error != EPERM && error != ENOMEM) {
            return error;
        }
    }
    return error;
}

int pk_perf_ring_init(pk_perf_ring *ring, const pk_perf_plan *plan, int cpu)
{
    memset(ring, 0, sizeof *ring);
    ring->descriptor = -1;
    ring->cpu = cpu;
    ring->interval_ns = ring->before_interval_ns = plan->interval_ns;
    if (plan->interval_ns <= 0 || plan->stack_bytes % 8 != 0 ||
        plan->stack_bytes > PK_PERF_STACK_BYTES_MAX || plan->page_count < PK_PERF_PAGES_MIN ||
        (plan->page_count & (plan->page_count - 1)) != 0 || plan->page_count > 1 << 16) {
        return EINVAL;
    }
    ring->descriptor = pk_perf_event_open(plan, PK_PERF_CLOCK, cpu);
    int error = ring->descriptor < 0 ? errno : map_ring(ring, plan);
    if (error == 0) {
        ring->whole = aligned_alloc(8, PK_PERF_RECORD_BYTES_MAX);
        error = ring->whole == NULL ? ENOMEM : 0;
    }
    if (error != 0) {
        pk_perf_ring_deinit(ring);
    }
    return error;
}

void pk_perf_ring_deinit(pk_perf_ring *ring)
{
    if (ring->mapped != NULL) {
        munmap(ring->mapped, ring->mapped_bytes);
    }
    if (ring->descriptor >= 0) {
        close(ring->descriptor);
    }
    free(ring->whole);
    ring->mapped = NULL;
    ring->whole = NULL;
    ring->descriptor = -1;
}

int pk_perf_ring_set_interval(pk_perf_ring *ring, int64_t interval_ns, int64_t now_ns)
{
    int error = pk_perf_event_set_interval(ring->descriptor, interval_ns);
    if (error == 0) {
        ring->before_interval_ns = ring->interval_ns;
        ring->interval_ns = interval_ns;
        ring->changed_ns = now_ns;
    }
    return error;
}

/* The kernel goes on telling the interval that a clock began with. */
static void set_weight(const pk_perf_ring *ring, pk_perf_record *record)
{
    record->is_switch = record->weight_ns == 1;
    record->weight_ns =
        record->time_ns < ring->changed_ns ? ring->before_interval_ns : ring->interval_ns;
    record->weight_ns = record->is_switch ? 0 : record->weight_ns;
}

static struct perf_event_mmap_page *to_page(pk_perf_ring *ring)
{
    return ring->mapped;
}

void pk_perf_ring_look(pk_perf_ring *ring)
{
    ring->head = __atomic_load_n(&to_page(ring)->data_head, __ATOMIC_ACQUIRE);
}

static void copy_out(const pk_perf_ring *ring, uint64_t position, void *buffer, size_t size)
{
    uint64_t at = position & (ring->size_bytes - 1);
    size_t first = (size_t)(ring->size_bytes - at);
    first = first < size ? first : size;
    memcpy(buffer, ring->bytes + at, first);
    memcpy((uint8_t *)buffer + first, ring->bytes, size - first);
}

/* How long the next record is; 0: there is none. What makes no sense is dropped, all of it. */
static size_t measure(pk_perf_ring *ring)
{
    struct perf_event_header header;
    uint64_t left = ring->head - ring->tail;
    if (left == 0) {
        return 0;
    }
    if (left >= sizeof header && left <= ring->size_bytes) {
        copy_out(ring, ring->tail, &header, sizeof header);
        if (header.size >= sizeof header && header.size % 8 == 0 && header.size <= left) {
            return header.size;
        }
    }
    ring->damaged_count++;
    ring->tail = ring->head;
    return 0;
}

bool pk_perf_ring_peek(pk_perf_ring *ring, pk_perf_record *ret)
{
    for (size_t size; (size = measure(ring)) != 0;) {
        uint64_t at = ring->tail & (ring->size_bytes - 1);
        const uint8_t *bytes = ring->bytes + at;
        if (size > ring->size_bytes - at) {
            copy_out(ring, ring->tail, ring->whole, size);
            bytes = ring->whole;
        }
        if (pk_perf_record_parse(bytes, size, ret)) {
            if (ret->kind == PK_PERF_SAMPLE) {
                set_weight(ring, ret);
            }
            return true;
        }
        ring->damaged_count++;
        ring->tail += size;
    }
    return false;
}

void pk_perf_ring_take(pk_perf_ring *ring)
{
    ring->tail += measure(ring);
    __atomic_store_n(&to_page(ring)->data_tail, ring->tail, __ATOMIC_RELEASE);
}
