#include "pk_perf_event.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pk_perf_record.h"

static void set_samples(struct perf_event_attr *wanted, const pk_perf_plan *plan)
{
    wanted->sample_regs_user = PK_PERF_REGISTERS;
    wanted->sample_stack_user = plan->stack_bytes;
    wanted->sample_max_stack = PK_PERF_KERNEL_DEPTH_LIMIT;
    wanted->exclude_callchain_user = 1; /* without frame pointers it is wrong, and it is slow */
    wanted->exclude_callchain_kernel = !plan->has_kernel;
}

static void set_clock(struct perf_event_attr *wanted, const pk_perf_plan *plan)
{
    set_samples(wanted, plan);
    wanted->config = PERF_COUNT_SW_CPU_CLOCK;
    wanted->sample_period = (uint64_t)plan->interval_ns;
    wanted->exclude_idle = 1;
    wanted->mmap = 1;
    wanted->mmap2 = 1;
    wanted->comm = 1;
    wanted->comm_exec = 1;
    wanted->task = 1;
    wanted->context_switch = plan->has_switches;
}

int pk_perf_event_open(const pk_perf_plan *plan, pk_perf_source source, int cpu)
{
    struct perf_event_attr wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.size = sizeof wanted;
    wanted.type = PERF_TYPE_SOFTWARE;
    wanted.sample_type = PK_PERF_SAMPLE_FIELDS;
    wanted.exclude_kernel = !plan->has_kernel;
    wanted.exclude_hv = 1;
    wanted.inherit = plan->thread > 0;
    wanted.sample_id_all = 1;
    wanted.use_clockid = 1;
    wanted.clockid = CLOCK_MONOTONIC;
    wanted.watermark = 1;
    wanted.wakeup_watermark = plan->page_count * 2048; /* half of the ring */
    if (source == PK_PERF_CLOCK) {
        set_clock(&wanted, plan);
    } else if (source == PK_PERF_SWITCHES) {
        /* Its sample_type asks for call chains, which only those may that see the kernel. */
        wanted.sample_regs_user = PK_PERF_REGISTERS;
        wanted.sample_stack_user = 8;
        wanted.exclude_callchain_kernel = !plan->has_kernel;
        wanted.config = PERF_COUNT_SW_DUMMY;
        wanted.context_switch = 1;
    } else {
        set_samples(&wanted, plan);
        wanted.config = PERF_COUNT_SW_CONTEXT_SWITCHES;
        wanted.sample_period = 1;
    }
    return (int)syscall(SYS_perf_event_open, &wanted, plan->thread, cpu, -1,
                        PERF_FLAG_FD_CLOEXEC);
}

int pk_perf_event_join(int descriptor, int ring_descriptor)
{
    return ioctl(descriptor, PERF_EVENT_IOC_SET_OUTPUT, ring_descriptor) == 0 ? 0 : errno;
}

int pk_perf_event_set_interval(int descriptor, int64_t interval_ns)
{
    uint64_t period = (uint64_t)interval_ns;
    return ioctl(descriptor, PERF_EVENT_IOC_PERIOD, &period) == 0 ? 0 : errno;
}
