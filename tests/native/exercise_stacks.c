/* Tables of stacks against themselves: sums hold in trees, pruned ones, texts and lists, whatever
 * is counted; merging does not depend on order; bytes are read back, and damaged ones are refused
 * or give a table whose sums hold. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "pk_stacktop.h"
#include "pk_stacktree.h"
#include "pk_stackwire.h"

enum { NAME_COUNT = 12, DEPTH_MAX = 9, PAIR_COUNT = 40, DEEP = 3000 };

static uint64_t seed;
static unsigned long checked_count;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed >> 8;
}

static void expect(bool is_so, const char *what)
{
    if (!is_so) {
        printf("failed: %s, after %lu checks\n", what, checked_count);
        exit(1);
    }
    checked_count++;
}

static uint32_t draw_frame(pk_framenames *names)
{
    char texts[32];
    uint32_t number;
    int size_bytes = snprintf(texts, sizeof texts, "%s%lu;\n%s", draw() % 4 == 0 ? "" : "name",
                              (unsigned long)(draw() % NAME_COUNT), draw() % 2 == 0 ? "" : "f.py");
    size_t name_bytes = draw() % ((size_t)size_bytes + 1);
    expect(pk_framenames_intern(names, texts, name_bytes, (size_t)size_bytes - name_bytes,
                                &number) == 0,
           "a frame is interned");
    return draw() % 8 == 0 ? (uint32_t)(draw() % PK_FRAME_OWN_COUNT) : number;
}

static void add_stacks(pk_stacktable *table, size_t count)
{
    static uint32_t frames[PK_STACK_DEPTH_MAX];
    for (size_t i = 0; i < count; i++) {
        size_t depth = draw() % 50 == 0 ? draw() % DEEP : draw() % DEPTH_MAX;
        for (size_t k = 0; k < depth; k++) {
            frames[k] = depth > DEPTH_MAX && k > 0 ? frames[0] : draw_frame(&table->names);
        }
        uint32_t stack;
        expect(pk_stacktable_intern(table, frames, depth, &stack) == 0, "a stack is interned");
        expect(pk_stacktable_count(table, stack, draw() % 3 * (draw() % 1000)) == 0, "counts");
    }
}

/* Ids that are known, and some that are not, where no word is aligned. */
static void add_ids(pk_stacktable *table)
{
    char ids[PAIR_COUNT * PK_STACKID_BYTES + 1];
    char counts[PAIR_COUNT * sizeof(uint64_t) + 1];
    uint64_t total = table->total;
    for (size_t i = 0; i < PAIR_COUNT; i++) {
        pk_stackid id = {draw() % 3, draw() % 3};
        if (table->stack_count > 0 && draw() % 2 == 0) {
            id = table->stacks[draw() % table->stack_count].id;
        }
        uint64_t count = draw() % 5;
        memcpy(ids + 1 + i * sizeof id, &id, sizeof id);
        memcpy(counts + 1 + i * sizeof count, &count, sizeof count);
        total += count;
    }
    expect(pk_stacktable_add(table, ids + 1, counts + 1, PAIR_COUNT, true) == 0, "ids count");
    expect(table->total == total, "the total is the sum of counts");
    memset(counts + 1 + (PAIR_COUNT - 1) * sizeof total, 0xff, sizeof total);
    expect(pk_stacktable_add(table, ids + 1, counts + 1, PAIR_COUNT, true) == EDOM, "refused");
    expect(table->total == total, "nothing was counted");
}

static void make_table(pk_stacktable *ret)
{
    expect(pk_stacktable_init(ret) == 0, "a table is made");
    ret->duration_ns = draw() % 100;
    add_stacks(ret, draw() % 60);
    add_ids(ret);
}

static void check_sums(const pk_stacktree *tree, const uint64_t whole[PK_TREE_SIDE_MAX])
{
    for (int side = 0; side < tree->side_count; side++) {
        uint64_t sum = 0;
        for (uint32_t node = 0; node < tree->node_count; node++) {
            sum += tree->selfs[side][node];
            expect(node == 0 || tree->parents[node] < node, "parents come first");
            expect(tree->frames[node] < tree->names.count, "frames are named");
        }
        expect(sum == whole[side] && tree->totals[side][0] == sum, "no count is lost");
    }
}

static void check_folded(const pk_stacktree *tree)
{
    char *text;
    size_t size_bytes;
    uint64_t sum = 0;
    if (pk_stacktree_fold(tree, &text, &size_bytes) != 0) {
        expect(tree->side_count == 2, "a tree is folded");
        return;
    }
    text[size_bytes] = '\0';
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        *end = '\0';
        sum += strtoull(strrchr(line, ' ') + 1, NULL, 10);
        line = end + 1;
    }
    expect(sum == tree->totals[0][0], "lines have all counts");
    free(text);
}

static void check_tree(pk_stacktree *tree, uint64_t later, uint64_t earlier)
{
    const uint64_t whole[PK_TREE_SIDE_MAX] = {later, earlier};
    pk_stacktree pruned;
    check_sums(tree, whole);
    check_folded(tree);
    expect(pk_stacktree_prune(tree, (double)(draw() % 100) / 100, &pruned) == 0, "is pruned");
    expect(pruned.node_count <= tree->node_count, "pruned ones are not larger");
    check_sums(&pruned, whole);
    check_folded(&pruned);
    pk_stacktree_deinit(&pruned);
    pk_stacktree_deinit(tree);
}

static void check_table(const pk_stacktable *table)
{
    pk_stacktree tree;
    pk_stacktop *top;
    size_t count;
    uint64_t sum = 0;
    expect(pk_stacktree_build(table, &tree) == 0, "a tree is built");
    check_tree(&tree, table->total, 0);
    expect(pk_stacktop_list(table, SIZE_MAX, &top, &count) == 0, "frames are listed");
    for (size_t i = 0; i < count; i++) {
        sum += top[i].self;
        expect(i == 0 || top[i - 1].self >= top[i].self, "most comes first");
    }
    expect(sum == table->total, "frames have all counts");
    free(top);
}

static void check_bytes(const pk_stacktable *table)
{
    uint8_t *bytes;
    size_t size_bytes;
    pk_stacktable found;
    expect(pk_stackwire_encode(table, &bytes, &size_bytes) == 0, "a table is encoded");
    expect(pk_stackwire_decode(bytes, size_bytes, &found) == 0, "and decoded");
    expect(pk_stacktable_equal(table, &found), "and the same");
    pk_stacktable_deinit(&found);
    for (int i = 0; i < 20; i++) {
        size_t left = draw() % 2 == 0 ? size_bytes : draw() % (size_bytes + 1);
        uint8_t *damaged = malloc(left + 1); /* of its own size: the sanitizer sees its end */
        memcpy(damaged, bytes, left);
        for (size_t k = draw() % 4; k > 0 && left > 0; k--) {
            damaged[draw() % left] = (uint8_t)draw();
        }
        if (pk_stackwire_decode(damaged, left, &found) == 0) {
            check_table(&found);
            pk_stacktable_deinit(&found);
        }
        free(damaged);
    }
    free(bytes);
}

static void check_pair(pk_stacktable *one, pk_stacktable *two)
{
    pk_stacktree tree;
    pk_stacktable sum;
    pk_stacktable other_sum;
    expect(pk_stacktree_compare(one, two, draw() % 2 == 0, &tree) == 0, "tables are compared");
    check_tree(&tree, one->total, two->total);
    expect(pk_stacktable_copy(one, &sum) == 0 && pk_stacktable_copy(two, &other_sum) == 0, "");
    expect(pk_stacktable_merge(&sum, two) == 0, "a table is added");
    expect(pk_stacktable_merge(&other_sum, one) == 0, "and the other way round");
    expect(pk_stacktable_equal(&sum, &other_sum), "which is the same");
    expect(sum.total == one->total + two->total, "with all counts");
    expect(pk_stacktable_merge(&sum, &sum) == 0, "a table is added to itself");
    expect(sum.total == 2 * (one->total + two->total), "which doubles it");
    check_table(&sum);
    pk_stacktable_deinit(&sum);
    pk_stacktable_deinit(&other_sum);
}

int main(int argument_count, char **arguments)
{
    seed = argument_count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    int rounds = argument_count > 2 ? atoi(arguments[2]) : 10;
    for (int i = 0; i < rounds; i++) {
        pk_stacktable one;
        pk_stacktable two;
        make_table(&one);
        make_table(&two);
        check_table(&one);
        check_bytes(&one);
        check_pair(&one, &two);
        pk_stacktable_deinit(&one);
        pk_stacktable_deinit(&two);
    }
    printf("ok %lu\n", checked_count);
    return 0;
}
