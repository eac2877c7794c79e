/* A tree as folded stacks, the text that flame graph tools read. */
#include <errno.h>
#include <stdlib.h>

#include "pk_stacktree.h"

enum { BRACKETS_BYTES = 3 /* " (" and ")" around a file */ };

/* A count, and where two sides are told the one before it. */
typedef struct {
    uint64_t counts[PK_TREE_SIDE_MAX];
    int count;
} line_end;

/* The earlier side's counts brought to the later one's weight. Rounding goes on from line to line,
 * so that their sum is the whole brought to that weight, rounded down. */
typedef struct {
    uint64_t seen;
    uint64_t told;
} scaling;

static uint64_t scale(const pk_stacktree *tree, uint64_t count)
{
    unsigned __int128 product = (unsigned __int128)count * tree->weights[0];
    return tree->weights[1] == 0 ? 0 : (uint64_t)(product / tree->weights[1]);
}

static bool is_too_large(const pk_stacktree *tree)
{
    unsigned __int128 product = (unsigned __int128)tree->totals[1][0] * tree->weights[0];
    return tree->weights[1] != 0 && product / tree->weights[1] > PK_STACK_COUNT_MAX;
}

/* What stands at the end of a node's line; false where it has none. */
static bool find_end(const pk_stacktree *tree, uint32_t node, scaling *earlier, line_end *ret)
{
    uint64_t count = tree->selfs[0][node];
    if (tree->side_count == 1) {
        *ret = (line_end){{count}, 1};
        return count > 0;
    }
    earlier->seen += tree->selfs[1][node];
    uint64_t before = earlier->told;
    earlier->told = scale(tree, earlier->seen);
    *ret = (line_end){{earlier->told - before, count}, 2};
    return count > 0 || tree->selfs[1][node] > 0;
}

static size_t count_digits(uint64_t number)
{
    size_t digits = 1;
    for (; number >= 10; number /= 10) {
        digits++;
    }
    return digits;
}

/* Each number has a space before it, and the line a newline behind. */
static size_t measure_end(const line_end *end)
{
    size_t size_bytes = 1;
    for (int i = 0; i < end->count; i++) {
        size_bytes += 1 + count_digits(end->counts[i]);
    }
    return size_bytes;
}

static size_t measure_frame(const pk_framename *name)
{
    return name->name_bytes + (name->file_bytes > 0 ? BRACKETS_BYTES + name->file_bytes : 0);
}

/* Bytes of each node's frames; of the root, which is named only in its own line, 0. */
static int measure_paths(const pk_stacktree *tree, size_t **ret)
{
    size_t *sizes = malloc(tree->node_count * sizeof *sizes);
    if (sizes == NULL) {
        return ENOMEM;
    }
    sizes[0] = 0;
    for (uint32_t node = 1; node < tree->node_count; node++) {
        size_t above = sizes[tree->parents[node]];
        size_t between = tree->parents[node] == 0 ? 0 : 1;
        sizes[node] = above + between + measure_frame(&tree->names.names[tree->frames[node]]);
    }
    *ret = sizes;
    return 0;
}

static size_t measure_line(const pk_stacktree *tree, const size_t *sizes, uint32_t node)
{
    return node > 0 ? sizes[node] : measure_frame(&tree->names.names[PK_FRAME_ROOT]);
}

static int measure_all(const pk_stacktree *tree, const size_t *sizes, size_t *ret)
{
    scaling earlier = {0, 0};
    size_t whole = 0;
    for (uint32_t node = 0; node < tree->node_count; node++) {
        line_end end;
        if (find_end(tree, node, &earlier, &end)) {
            whole += measure_line(tree, sizes, node) + measure_end(&end);
        }
        if (whole > PK_FOLDED_BYTES_MAX) {
            return EOVERFLOW;
        }
    }
    *ret = whole;
    return 0;
}

/* Texts come from hosts: what separates frames and lines is none of them. */
static void write_text(char *at, const char *text, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++) {
        unsigned char byte = (unsigned char)text[i];
        at[i] = byte == ';' ? ':' : byte < ' ' || byte == 127 ? '?' : text[i];
    }
}

/* Writes a frame that ends before `end`; returns where it begins. */
static char *write_frame(const pk_framenames *names, uint32_t frame, char *end)
{
    const pk_framename *name = &names->names[frame];
    const char *texts = pk_framenames_texts(names, frame);
    if (name->file_bytes > 0) {
        *--end = ')';
        end -= name->file_bytes;
        write_text(end, texts + name->name_bytes, name->file_bytes);
        *--end = '(';
        *--end = ' ';
    }
    end -= name->name_bytes;
    write_text(end, texts, name->name_bytes);
    return end;
}

/* Writes a node's frames from the innermost to the outermost, backwards. */
static void write_path(const pk_stacktree *tree, uint32_t node, char *end)
{
    end = write_frame(&tree->names, tree->frames[node], end);
    for (node = tree->parents[node]; node > 0; node = tree->parents[node]) {
        *--end = ';';
        end = write_frame(&tree->names, tree->frames[node], end);
    }
}

static char *write_end(const line_end *end, char *at)
{
    for (int i = 0; i < end->count; i++) {
        size_t digits = count_digits(end->counts[i]);
        uint64_t left = end->counts[i];
        *at++ = ' ';
        for (size_t k = digits; k > 0; k--) {
            at[k - 1] = (char)('0' + left % 10);
            left /= 10;
        }
        at += digits;
    }
    *at++ = '\n';
    return at;
}

static void write_all(const pk_stacktree *tree, const size_t *sizes, char *at)
{
    scaling earlier = {0, 0};
    for (uint32_t node = 0; node < tree->node_count; node++) {
        line_end end;
        if (find_end(tree, node, &earlier, &end)) {
            at += measure_line(tree, sizes, node);
            write_path(tree, node, at);
            at = write_end(&end, at);
        }
    }
}

int pk_stacktree_fold(const pk_stacktree *tree, char **ret, size_t *ret_bytes)
{
    if (tree->side_count == 2 && is_too_large(tree)) {
        return EOVERFLOW;
    }
    size_t *sizes;
    int error = measure_paths(tree, &sizes);
    if (error != 0) {
        return error;
    }
    error = measure_all(tree, sizes, ret_bytes);
    if (error == 0) {
        *ret = malloc(*ret_bytes + 1);
        error = *ret == NULL ? ENOMEM : 0;
    }
    if (error == 0) {
        write_all(tree, sizes, *ret);
    }
    free(sizes);
    return error;
}
