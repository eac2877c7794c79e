/* Damages programs, mappings and stacks, and has the unwinder look at them, under the sanitizers.
 * Arguments: seed, rounds, programs. Prints "ok" and counts; a fault aborts. */
#include "pk_perf_record.h"
#include "pk_unwind.h"

#include <fcntl.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORD_COUNT = 512, LOOKUP_COUNT = 40, PROGRAM_LIMIT = 8 };

static const uint64_t BASE = 0x500000000000;
static const uint64_t STACK = 0x7ff000000000;

typedef struct {
    uint8_t *bytes;
    size_t size;
} program;

static uint64_t state;
static program programs[PROGRAM_LIMIT];
static pk_unwinder unwinder;
static uint64_t words[WORD_COUNT];
static struct {
    long rules, stacks, frames, refused, records;
} seen;

static uint64_t draw(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return limit == 0 ? 0 : (state >> 8) % limit;
}

static program load(const char *path)
{
    int descriptor = open(path, O_RDONLY);
    off_t size = lseek(descriptor, 0, SEEK_END);
    program found = {malloc((size_t)size), (size_t)size};
    if (pread(descriptor, found.bytes, found.size, 0) != size) {
        abort();
    }
    close(descriptor);
    return found;
}

static uint64_t odd_number(void)
{
    static const uint64_t odd[] = {0, 1, 4, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000,
                                   0xFFFFFFFF, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    return draw(2) == 0 ? odd[draw(sizeof odd / sizeof odd[0])] : state;
}

/* A copy of exactly its size, so that a read beyond it is seen; damaged where it hurts. */
static program damage(const program *whole, const pk_elf *elf)
{
    program copy = {malloc(whole->size), whole->size};
    memcpy(copy.bytes, whole->bytes, whole->size);
    for (uint64_t i = draw(8); i > 0; i--) {
        uint64_t at = draw(whole->size);
        switch (draw(5)) {
        case 0:
            at = draw(sizeof(Elf64_Ehdr));
            break;
        case 1:
            at = sizeof(Elf64_Ehdr) + draw(14 * sizeof(Elf64_Phdr));
            break;
        case 2:
            at = elf->index_count != 0 ? elf->index_offset - 12 + draw(200) : at;
            break;
        default:
            at = elf->frames_offset + draw(elf->frames_bytes);
        }
        uint64_t word = odd_number();
        size_t width = (size_t)1 << draw(4);
        if (at + width <= copy.size) {
            memcpy(copy.bytes + at, &word, width);
        }
    }
    if (draw(6) == 0) {
        copy.size = draw(copy.size);
        copy.bytes = realloc(copy.bytes, copy.size + (copy.size == 0));
    }
    return copy;
}

static const pk_segment *draw_code(const pk_elf *elf)
{
    const pk_segment *found = &elf->segments[draw(elf->segment_count)];
    for (int i = 0; i < 20 && !found->is_executable; i++) {
        found = &elf->segments[draw(elf->segment_count)];
    }
    return found;
}

/* Mostly places in the code or the stack. */
static uint64_t draw_word(const pk_elf *elf)
{
    const pk_segment *code = draw_code(elf);
    switch (draw(4)) {
    case 0:
        return STACK + 8 * draw(WORD_COUNT);
    case 1:
        return odd_number();
    default:
        return BASE + code->offset + draw(code->size_bytes);
    }
}

static size_t read_late(void *context, uint64_t address, void *buffer, size_t size)
{
    (void)context;
    memset(buffer, (int)draw(256), size);
    return address == 0 ? 0 : draw(size + 1);
}

static void unwind(const pk_elf *elf, const pk_source *source)
{
    static pk_stack stack;
    pk_maps maps;
    pk_maps_init(&maps);
    pk_mapping mapping = {
        .start = BASE, .end = BASE + source->size_bytes + 1, .kind = PK_MAPPING_FILE};
    pk_source copy = *source;
    copy.descriptor = source->descriptor < 0 ? -1 : dup(source->descriptor);
    if (pk_objects_add(&unwinder.objects, &unwinder.blocks, &copy, &mapping, "program",
                       &mapping.object) != 0) {
        seen.refused++;
        return;
    }
    mapping.serial = unwinder.objects.objects[mapping.object].source.serial;
    mapping.state = PK_MAPPING_OPEN;
    const pk_elf *read = &unwinder.objects.objects[mapping.object].elf;
    (void)pk_elf_find_bias(read, 0, source->size_bytes, &mapping.bias);
    pk_maps_add(&maps, &mapping);
    pk_mapping made = {.start = BASE + (1 << 28), .end = BASE + (1 << 29)};
    pk_maps_add(&maps, &made);
    for (int i = 0; i < WORD_COUNT; i++) {
        words[i] = draw_word(elf);
    }
    for (int i = 0; i < LOOKUP_COUNT; i++) {
        pk_snapshot snapshot = {.stack = (const uint8_t *)words,
                                .stack_address = STACK,
                                .stack_bytes = draw(sizeof words + 1),
                                .read = draw(2) == 0 ? read_late : NULL};
        for (int j = 0; j < PK_REGISTER_COUNT; j++) {
            snapshot.registers.values[j] = draw_word(elf);
        }
        snapshot.registers.values[PK_RSP] = STACK + 8 * draw(WORD_COUNT);
        snapshot.registers.known = (uint32_t)state | 1U << PK_RSP | 1U << PK_RIP;
        pk_unwind(&unwinder, &maps, &snapshot, &stack);
        seen.stacks++;
        seen.frames += (long)stack.depth;
    }
    pk_maps_deinit(&maps);
}

/* Finds what there is to find of functions that the undamaged file has, and of any. */
static void look_up(const pk_elf *whole, const pk_source *source)
{
    pk_elf elf;
    if (pk_elf_read(&elf, &unwinder.blocks, source) != 0) {
        return;
    }
    for (int i = 0; i < LOOKUP_COUNT; i++) {
        const pk_segment *code = draw_code(whole);
        uint64_t address = code->address + draw(code->size_bytes);
        pk_rule rule;
        seen.rules += pk_cfi_find(&rule, &elf, &unwinder.blocks, source, address) == 0;
        uint64_t offset;
        (void)pk_elf_to_offset(&elf, odd_number(), &offset);
    }
}

static bool add_line(void *context, const char *line, size_t size)
{
    char *copy = malloc(size + (size == 0));
    memcpy(copy, line, size);
    pk_mapping mapping;
    const char *path;
    size_t path_bytes;
    bool is_executable;
    if (pk_maps_parse_line(copy, size, &mapping, &path, &path_bytes, &is_executable) == 0) {
        (void)pk_maps_add(context, &mapping);
    }
    mapping = (pk_mapping){.kind = PK_MAPPING_FILE};
    mapping.start = draw(400);
    mapping.end = mapping.start + draw(60);
    (void)pk_maps_add(context, &mapping);
    free(copy);
    return true;
}

static void parse_maps(void)
{
    static const char text[] = "7f3a00001000-7f3a00042000 r-xp 00001000 fd:01 4242    /lib/a.so\n";
    int descriptor = memfd_create("maps", MFD_CLOEXEC);
    for (int i = 0; i < 64; i++) {
        char line[sizeof text];
        memcpy(line, text, sizeof text);
        for (uint64_t j = draw(5); j > 0; j--) {
            line[draw(sizeof text - 2)] = "0123456789abcdef-: x/\n\0z"[draw(24)];
        }
        if (write(descriptor, line, draw(sizeof text)) < 0) {
            abort();
        }
    }
    pk_maps maps;
    pk_maps_init(&maps);
    lseek(descriptor, 0, SEEK_SET);
    (void)pk_maps_visit(descriptor, add_line, &maps);
    for (size_t i = 1; i < maps.count; i++) {
        if (maps.mappings[i].start < maps.mappings[i - 1].end) {
            abort(); /* sorted, and none in another */
        }
    }
    pk_maps_deinit(&maps);
    close(descriptor);
}

/* A record as the kernel writes it, damaged; its texts and pieces may not lead out of it. */
static void parse_record(void)
{
    size_t size = 8 * (1 + draw(60));
    uint64_t *bytes = malloc(size);
    for (size_t i = 0; i < size / 8; i++) {
        bytes[i] = draw(3) == 0 ? draw(80) : odd_number();
    }
    static const uint32_t types[] = {9, 9, 9, 10, 3, 7, 4, 14, 15, 2, 13, 1};
    uint32_t type = types[draw(sizeof types / sizeof types[0])];
    memcpy(bytes, &type, sizeof type);
    pk_perf_record record;
    if (pk_perf_record_parse((const uint8_t *)bytes, size, &record)) {
        seen.records++;
        volatile uint8_t last = 0;
        last ^= record.stack_bytes > 0 ? record.stack[record.stack_bytes - 1] : 0;
        last ^= record.text_bytes > 0 ? (uint8_t)record.text[record.text_bytes - 1] : 0;
        last ^= record.kernel_depth > 0 ? (uint8_t)record.kernel[record.kernel_depth - 1] : 0;
    }
    free(bytes);
}

int main(int count, char **arguments)
{
    if (count < 4 || pk_unwinder_init(&unwinder, open("/proc", O_PATH | O_DIRECTORY)) != 0) {
        return 2;
    }
    state = strtoull(arguments[1], NULL, 10) * 2654435761ULL + 88172645463325252ULL;
    long rounds = strtol(arguments[2], NULL, 10);
    int program_count = count - 3 < PROGRAM_LIMIT ? count - 3 : PROGRAM_LIMIT;
    for (int i = 0; i < program_count; i++) {
        programs[i] = load(arguments[3 + i]);
    }
    for (long round = 0; round < rounds; round++) {
        const program *whole = &programs[draw((uint64_t)program_count)];
        pk_source source = {.descriptor = -1, .size_bytes = whole->size, .image = whole->bytes};
        pk_elf elf;
        if (pk_elf_read(&elf, &unwinder.blocks, &source) != 0) {
            return 3;
        }
        program hurt = damage(whole, &elf);
        source.image = hurt.bytes;
        source.size_bytes = hurt.size;
        look_up(&elf, &source);
        int file = memfd_create("program", MFD_CLOEXEC);
        if (write(file, hurt.bytes, hurt.size) < 0) {
            return 4;
        }
        pk_source on_disk = {.descriptor = file};
        unwind(&elf, draw(2) == 0 ? &source : &on_disk);
        close(file);
        parse_maps();
        for (int i = 0; i < LOOKUP_COUNT; i++) {
            parse_record();
        }
        /* Nothing may point into what goes away now. */
        pk_objects_deinit(&unwinder.objects);
        if (pk_objects_init(&unwinder.objects, AT_FDCWD) != 0) {
            return 5;
        }
        unwinder.objects.last_serial = (uint32_t)round + 1;
        free(hurt.bytes);
    }
    pk_unwinder_deinit(&unwinder);
    for (int i = 0; i < program_count; i++) {
        free(programs[i].bytes);
    }
    printf("ok rules %ld stacks %ld frames %ld refused %ld records %ld\n", seen.rules,
           seen.stacks, seen.frames, seen.refused, seen.records);
    return 0;
}
