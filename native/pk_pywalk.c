#include "pk_pywalk.h"

#include <errno.h>
#include <string.h>

enum {
    BLOCK_BYTES = 2048, /* frames of plain calls lie one behind the other, callers before callees */
    TRY_COUNT = 8, /* of code that calls and returns all the time, 3 left 22 % torn */
    STEP_LIMIT = 2 * PK_PYSTACK_DEPTH_LIMIT, /* shims are frames, too */
};

/* What has been read of one thread in one try. */
typedef struct {
    const pk_pylayout *layout;
    pid_t pid;
    const pk_pywalk *walk;
    char gathered[(PK_PYSTACK_DEPTH_LIMIT + 2) * PK_PY_FRAME_SPAN_BYTES];
    size_t gathered_count; /* of frames that came */
    size_t next_gathered;  /* where the search for the next one begins */
    uint64_t block_address;
    size_t block_bytes; /* 0 = none */
    char block[BLOCK_BYTES];
    bool has_read_more;
} view;

static size_t offset_of(const pk_pylayout *layout, int field)
{
    return (size_t)layout->offsets[field];
}

/* A frame among those of the last walk; they are met in order. */
static const char *find_gathered(view *seen, uint64_t address)
{
    const pk_pywalk *walk = seen->walk;
    for (size_t i = seen->next_gathered; i < seen->gathered_count; i++) {
        if (walk->frames[i] == address) {
            seen->next_gathered = i + 1;
            return seen->gathered + i * seen->layout->frame_bytes;
        }
    }
    return NULL;
}

/* Reads what lies up to the end of a frame, where that may be read, or the frame alone. */
static int read_block(view *seen, uint64_t address)
{
    size_t frame_bytes = seen->layout->frame_bytes;
    uint64_t end = address + frame_bytes;
    seen->has_read_more = true;
    seen->block_address = end - BLOCK_BYTES;
    seen->block_bytes = BLOCK_BYTES;
    /* Within one page, a read of more succeeds wherever that of the frame does. */
    if (pk_remote_is_address(address - address % 8 - BLOCK_BYTES, BLOCK_BYTES) &&
        pk_remote_read(seen->pid, seen->block_address, seen->block, BLOCK_BYTES) == 0) {
        return 0;
    }
    seen->block_address = address;
    seen->block_bytes = frame_bytes;
    int error = pk_remote_read(seen->pid, address, seen->block, frame_bytes);
    if (error != 0) {
        seen->block_bytes = 0;
    }
    return error;
}

static int find_frame(view *seen, uint64_t address, const char **ret)
{
    size_t frame_bytes = seen->layout->frame_bytes;
    if (!pk_remote_is_address(address, frame_bytes)) {
        return EAGAIN;
    }
    *ret = find_gathered(seen, address);
    if (*ret != NULL) {
        return 0;
    }
    uint64_t place = address - seen->block_address;
    if (seen->block_bytes < frame_bytes || address < seen->block_address ||
        place > seen->block_bytes - frame_bytes) {
        int error = read_block(seen, address);
        if (error != 0) {
            return error;
        }
        place = address - seen->block_address;
    }
    *ret = seen->block + place;
    return 0;
}

/* The address of the innermost frame; before 3.13 a struct on the C stack tells it. */
static int read_top(const pk_pylayout *layout, pid_t pid, uint64_t thread, uint64_t *ret_cframe,
                    uint64_t *ret)
{
    uint64_t pointer = 0;
    int error = pk_remote_read(pid, thread + offset_of(layout, PK_PY_THREAD_FRAME), &pointer, 8);
    int64_t current = layout->offsets[PK_PY_CFRAME_CURRENT];
    *ret_cframe = pointer;
    if (error == 0 && current >= 0) {
        if (!pk_remote_is_address(pointer, (size_t)current + 8)) {
            return EAGAIN;
        }
        error = pk_remote_read(pid, pointer + (uint64_t)current, &pointer, 8);
    }
    *ret = pointer;
    return error;
}

/* Reads the top, and the frames of the last walk, at one go where they are where they were. */
static int begin(view *seen, uint64_t thread, uint64_t *ret_cframe, uint64_t *ret_top)
{
    const pk_pylayout *layout = seen->layout;
    int64_t current = layout->offsets[PK_PY_CFRAME_CURRENT];
    pk_gather gather;
    gather.count = 0;
    char raw[16 + sizeof seen->gathered];
    size_t head_bytes = 8;
    bool is_ready = pk_gather_add(&gather, thread + offset_of(layout, PK_PY_THREAD_FRAME), 8);
    if (current >= 0) {
        is_ready = is_ready && seen->walk->cframe != 0 &&
                   pk_gather_add(&gather, seen->walk->cframe + (uint64_t)current, 8);
        head_bytes = 16;
    }
    for (size_t i = 0; is_ready && i < seen->walk->frame_count; i++) {
        if (!pk_gather_add(&gather, seen->walk->frames[i], layout->frame_bytes)) {
            break;
        }
    }
    size_t size = 0;
    if (is_ready) {
        int error = pk_gather_read(&gather, seen->pid, raw, sizeof raw, &size);
        if (error == ESRCH || error == EPERM) {
            return error;
        }
    }
    *ret_cframe = size >= 8 ? pk_remote_word(raw, 0) : 0;
    if (size < head_bytes || (current >= 0 && *ret_cframe != seen->walk->cframe)) {
        int error = read_top(layout, seen->pid, thread, ret_cframe, ret_top);
        seen->has_read_more = true;
        if (size < head_bytes || error != 0) {
            return error;
        }
    } else {
        *ret_top = pk_remote_word(raw, head_bytes - 8);
    }
    seen->gathered_count = (size - head_bytes) / layout->frame_bytes;
    memcpy(seen->gathered, raw + head_bytes, seen->gathered_count * layout->frame_bytes);
    return 0;
}

static int follow(view *seen, uint64_t top, pk_pywalk *next, pk_pyframes *ret)
{
    const pk_pylayout *layout = seen->layout;
    uint64_t address = top;
    ret->depth = 0;
    ret->is_cut = false;
    next->frame_count = 0;
    for (int step = 0; address != 0; step++) {
        if (step >= STEP_LIMIT || ret->depth >= PK_PYSTACK_DEPTH_LIMIT) {
            ret->is_cut = true;
            return 0;
        }
        const char *frame = NULL;
        int error = find_frame(seen, address, &frame);
        if (error != 0) {
            return error;
        }
        if (next->frame_count < PK_PYSTACK_DEPTH_LIMIT) {
            next->frames[next->frame_count++] = address;
        }
        unsigned char owner = (unsigned char)frame[offset_of(layout, PK_PY_FRAME_OWNER)];
        if (owner < PK_PY_FRAME_SHIM_OWNER) {
            uint64_t code = pk_remote_word(frame, offset_of(layout, PK_PY_FRAME_CODE));
            if (!pk_remote_is_address(code, layout->code_bytes)) {
                return EAGAIN;
            }
            int64_t entry = layout->offsets[PK_PY_FRAME_ENTRY];
            ret->entries[ret->depth] = entry >= 0 && frame[entry] != 0;
            ret->codes[ret->depth++] = code;
        } else if (ret->depth > 0) {
            ret->entries[ret->depth - 1] = true;
        }
        uint64_t previous = pk_remote_word(frame, offset_of(layout, PK_PY_FRAME_PREVIOUS));
        if (previous == address) {
            return EAGAIN;
        }
        address = previous;
    }
    return 0;
}

static int try_once(pk_pywalk *walk, const pk_pylayout *layout, pid_t pid, uint64_t thread,
                    pk_pyframes *ret)
{
    view seen;
    seen.layout = layout;
    seen.pid = pid;
    seen.walk = walk;
    seen.gathered_count = seen.next_gathered = seen.block_bytes = 0;
    seen.block_address = 0;
    seen.has_read_more = false;
    uint64_t top = 0;
    pk_pywalk next;
    next.frame_count = 0;
    int error = begin(&seen, thread, &next.cframe, &top);
    if (error == 0) {
        error = follow(&seen, top, &next, ret);
    }
    if (error == 0 && seen.has_read_more) {
        /* What took several reads is one stack only where the thread has not moved meanwhile. */
        uint64_t cframe = 0;
        uint64_t again = 0;
        error = read_top(layout, pid, thread, &cframe, &again);
        if (error == 0 && (again != top || cframe != next.cframe)) {
            error = EAGAIN;
        }
    }
    if (error == 0 || error == EAGAIN) {
        walk->cframe = next.cframe;
        walk->frame_count = next.frame_count;
        memcpy(walk->frames, next.frames, next.frame_count * sizeof *next.frames);
    }
    return error;
}

int pk_pywalk_read(pk_pywalk *walk, const pk_pylayout *layout, pid_t pid, uint64_t thread,
                   pk_pyframes *ret)
{
    int error = EAGAIN;
    for (int i = 0; i < TRY_COUNT && (error == EAGAIN || error == EFAULT); i++) {
        error = try_once(walk, layout, pid, thread, ret);
        if (error == EFAULT) { /* a frame of before is no longer there */
            walk->frame_count = 0;
        }
    }
    return error == EFAULT ? EAGAIN : error;
}
