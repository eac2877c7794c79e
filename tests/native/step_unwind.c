/* Runs a program instruction by instruction, keeps book of its calls and returns, and holds every
 * now and then what the unwinder makes of its registers and stack against that book.
 * Arguments: seed, how many instructions, one look in how many, "start" | "stop" | "thread",
 * program and its arguments. The book begins with the program ("start"), once it stops itself
 * ("stop": what was called before is taken from the unwinder), or with the thread that it makes
 * ("thread").
 * Prints counts; complains of the first stacks that differ. */
#include "pk_unwind.h"
#include "snapshots.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BOOK_LIMIT = 1 << 16, COMPLAINT_LIMIT = 8 };

/* A call that has not returned: where its return address lies, and what it is. */
typedef struct {
    uint64_t place;
    uint64_t pc;
} call;

typedef struct {
    long points, exact, shorter, wrong, guessed, by_pointer, late, interrupted, root, deepest;
} counts;

static call book[BOOK_LIMIT];
static size_t book_count;
static counts found;
static pid_t child;
static pk_unwinder unwinder;
static pk_maps maps;
static pk_stack stack;
static uint64_t state;

static uint64_t draw(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 16) % limit;
}

static void die(const char *what)
{
    perror(what);
    kill(child, SIGKILL);
    exit(2);
}

static uint64_t peek(uint64_t address)
{
    errno = 0;
    long word = ptrace(PTRACE_PEEKDATA, child, (void *)address, NULL);
    return errno == 0 ? (uint64_t)word : 0;
}

static void write_down(uint64_t place, uint64_t pc)
{
    if (book_count == BOOK_LIMIT) {
        die("book");
    }
    book[book_count++] = (call){place, pc};
}

static void complain(const char *kind)
{
    static int count;
    if (count++ >= COMPLAINT_LIMIT) {
        return;
    }
    fprintf(stderr, "%s, end %d:\n", kind, (int)stack.end);
    for (size_t i = 0; i < stack.depth || i <= book_count; i++) {
        const pk_frame *frame = &stack.frames[i];
        unsigned long long ours = i < stack.depth ? frame->pc : 0;
        unsigned long long true_pc =
            i == 0 ? ours : i <= book_count ? book[book_count - i].pc : 0;
        fprintf(stderr, "  %c true %llx ours %llx flags %u %s+%llx\n", ours == true_pc ? ' ' : '*',
                true_pc, ours, i < stack.depth ? frame->flags : 0,
                i < stack.depth && frame->serial != 0
                    ? unwinder.objects.objects[frame->object].path
                    : "",
                i < stack.depth ? (unsigned long long)frame->file_offset : 0);
        if (i > 40) {
            break;
        }
    }
}

static void compare(void)
{
    size_t depth = stack.depth;
    size_t wanted = book_count + 1 < PK_UNWIND_DEPTH_LIMIT ? book_count + 1 : PK_UNWIND_DEPTH_LIMIT;
    size_t equal = 1;
    while (equal < depth && equal < wanted &&
           stack.frames[equal].pc == book[book_count - equal].pc) {
        equal++;
    }
    found.points++;
    found.root += stack.end == PK_UNWIND_ROOT || stack.end == PK_UNWIND_TOO_DEEP;
    found.deepest = (long)depth > found.deepest ? (long)depth : found.deepest;
    found.guessed += (stack.flags & PK_FRAME_GUESSED) != 0;
    found.by_pointer += (stack.flags & PK_FRAME_BY_POINTER) != 0;
    found.late += (stack.flags & PK_FRAME_LATE) != 0;
    found.interrupted += (stack.flags & PK_FRAME_INTERRUPTED) != 0;
    if (equal == depth && depth == wanted) {
        found.exact++;
    } else if (equal == depth) {
        found.shorter++;
        complain("shorter");
    } else {
        found.wrong++;
        complain("wrong");
    }
}

/* Every other look has the whole stack; the others have little, and read the rest late. */
static void look(const struct user_regs_struct *registers)
{
    pk_snapshot snapshot;
    bool is_short = draw(2) == 0;
    snapshot_take(&snapshot, child, registers, is_short ? 512 : SNAPSHOT_STACK_BYTES);
    pk_unwind(&unwinder, &maps, &snapshot, &stack);
    compare();
    snapshot_keep(&snapshot, is_short);
}

static void begin_book(void)
{
    struct user_regs_struct registers;
    pk_snapshot snapshot;
    if (ptrace(PTRACE_GETREGS, child, NULL, &registers) != 0) {
        die("registers");
    }
    snapshot_take(&snapshot, child, &registers, SNAPSHOT_STACK_BYTES);
    pk_unwind(&unwinder, &maps, &snapshot, &stack);
    if (stack.end != PK_UNWIND_ROOT) {
        complain("no root to begin with");
    }
    for (size_t i = stack.depth; i-- > 1;) {
        write_down(stack.frames[i].stack_pointer - 8, stack.frames[i].pc);
    }
}

static void keep_book(const struct user_regs_struct *before, const struct user_regs_struct *after,
                      bool is_signal)
{
    if (is_signal && after->rip != before->rip) {
        /* The kernel has made a frame: it returns to what ends a signal, and that to here. */
        write_down(after->rsp + 8, before->rip);
        write_down(after->rsp, peek(after->rsp));
        return;
    }
    while (book_count > 0 && book[book_count - 1].place < after->rsp) {
        book_count--;
    }
    if (after->rsp == before->rsp - 8) {
        uint64_t word = peek(after->rsp);
        if (word > before->rip && word <= before->rip + 15) {
            write_down(after->rsp, word);
        }
    }
}

static int wait_for(void)
{
    int status;
    if (waitpid(child, &status, __WALL) != child) {
        die("wait");
    }
    return status;
}

/* Lets the program run until it stops itself, or makes a thread, which is then followed. */
static void run_until(bool is_thread)
{
    ptrace(PTRACE_SETOPTIONS, child, NULL,
           PTRACE_O_EXITKILL | (is_thread ? PTRACE_O_TRACECLONE : 0));
    for (int signal = 0;;) {
        if (ptrace(PTRACE_CONT, child, NULL, signal) != 0) {
            die("continue");
        }
        int status = wait_for();
        if (!WIFSTOPPED(status)) {
            die("the program ended");
        }
        signal = WSTOPSIG(status);
        if (is_thread && status >> 8 == (SIGTRAP | PTRACE_EVENT_CLONE << 8)) {
            unsigned long thread = 0;
            ptrace(PTRACE_GETEVENTMSG, child, NULL, &thread);
            ptrace(PTRACE_CONT, child, NULL, 0);
            child = (pid_t)thread;
            wait_for();
            return;
        }
        if (!is_thread && signal == SIGSTOP) {
            return;
        }
        signal = signal == SIGTRAP ? 0 : signal;
    }
}

static void step(long count, uint64_t one_in)
{
    struct user_regs_struct before;
    int signal = 0;
    bool is_stale = true;
    if (ptrace(PTRACE_GETREGS, child, NULL, &before) != 0) {
        die("registers");
    }
    for (long i = 0; i < count; i++) {
        struct user_regs_struct after;
        is_stale = is_stale || (peek(before.rip) & 0xFFFF) == 0x050F; /* a system call */
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, signal) != 0) {
            die("step");
        }
        int status = wait_for();
        if (!WIFSTOPPED(status)) {
            return;
        }
        if (ptrace(PTRACE_GETREGS, child, NULL, &after) != 0) {
            die("registers");
        }
        keep_book(&before, &after, signal != 0);
        signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        before = after;
        if (draw(one_in) == 0) {
            if (is_stale) {
                pk_maps_read(&maps, unwinder.objects.proc, child);
                is_stale = false;
            }
            look(&after);
        }
    }
}

int main(int count, char **words)
{
    if (count < 6) {
        return 2;
    }
    state = strtoull(words[1], NULL, 10) * 2654435761ULL + 88172645463325252ULL;
    child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execv(words[5], words + 5);
        _exit(127);
    }
    pid_t process = child;
    wait_for();
    pk_maps_init(&maps);
    if (pk_unwinder_init(&unwinder, open("/proc", O_PATH | O_DIRECTORY)) != 0) {
        die("unwinder");
    }
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL);
    if (strcmp(words[4], "start") != 0) {
        run_until(strcmp(words[4], "thread") == 0);
    }
    pk_maps_read(&maps, unwinder.objects.proc, child);
    if (strcmp(words[4], "stop") == 0) {
        begin_book();
    }
    step(strtol(words[2], NULL, 10), strtoull(words[3], NULL, 10));
    printf("points %ld exact %ld shorter %ld wrong %ld guessed %ld by_pointer %ld late %ld "
           "interrupted %ld root %ld deepest %ld\n",
           found.points, found.exact, found.shorter, found.wrong, found.guessed, found.by_pointer,
           found.late, found.interrupted, found.root, found.deepest);
    snapshot_replay(&unwinder, &maps);
    kill(process, SIGKILL);
    return 0;
}
