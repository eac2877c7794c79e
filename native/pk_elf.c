#include "pk_elf.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

enum {
    PROGRAM_HEADER_LIMIT = 256,
    SECTION_LIMIT = 4096,
    NOTE_LIMIT = 32,
    NOTES_BYTES_MAX = 1 << 16,
    ENCODED_AS_UNSIGNED_4 = 0x03,    /* how .eh_frame_hdr writes its count, */
    ENCODED_TO_ITSELF_SIGNED_4 = 0x1B, /* its pointer to .eh_frame, */
    ENCODED_TO_TABLE_SIGNED_4 = 0x3B, /* and its rows; linkers know no other way */
    INDEX_HEADER_BYTES = 12,
    INDEX_ROW_BYTES = 8,
};

typedef struct {
    pk_blocks *blocks;
    const pk_source *source;
} file;

static bool read_at(file from, uint64_t offset, void *buffer, size_t size)
{
    return pk_blocks_read(from.blocks, from.source, offset, buffer, size) == size;
}

/* A part that the file really has. */
static bool is_inside(file from, uint64_t offset, uint64_t size_bytes)
{
    return offset <= from.source->size_bytes && size_bytes <= from.source->size_bytes - offset;
}

bool pk_elf_to_offset(const pk_elf *elf, uint64_t address, uint64_t *ret)
{
    for (size_t i = 0; i < elf->segment_count; i++) {
        const pk_segment *segment = &elf->segments[i];
        if (address >= segment->address && address - segment->address < segment->size_bytes) {
            *ret = address - segment->address + segment->offset;
            return true;
        }
    }
    return false;
}

bool pk_elf_find_bias(const pk_elf *elf, uint64_t offset, uint64_t size_bytes, uint64_t *ret)
{
    for (size_t i = 0; i < elf->segment_count; i++) {
        const pk_segment *segment = &elf->segments[i];
        if (segment->is_executable && segment->offset < offset + size_bytes &&
            segment->offset + segment->size_bytes > offset) {
            *ret = segment->address - segment->offset;
            return true;
        }
    }
    return false;
}

static void read_notes(pk_elf *elf, file from, const Elf64_Phdr *header)
{
    if (header->p_filesz > NOTES_BYTES_MAX || elf->build_id_bytes != 0) {
        return;
    }
    uint64_t align = header->p_align == 8 ? 8 : 4;
    pk_cursor at;
    pk_cursor_init(&at, from.blocks, from.source, header->p_offset, header->p_filesz);
    for (int i = 0; i < NOTE_LIMIT && !pk_cursor_is_at_end(&at); i++) {
        uint64_t name_bytes = pk_cursor_take(&at, 4);
        uint64_t content_bytes = pk_cursor_take(&at, 4);
        uint64_t kind = pk_cursor_take(&at, 4);
        uint64_t name = name_bytes == 4 ? pk_cursor_take(&at, 4) : 0;
        if (name_bytes != 4) {
            pk_cursor_skip(&at, (name_bytes + align - 1) / align * align);
        }
        if (at.has_failed) {
            return;
        }
        if (kind == NT_GNU_BUILD_ID && name == 0x00554E47) { /* "GNU" */
            size_t size = content_bytes < PK_BUILD_ID_BYTES ? content_bytes : PK_BUILD_ID_BYTES;
            if (content_bytes <= header->p_filesz &&
                read_at(from, at.position, elf->build_id, size)) {
                elf->build_id_bytes = size;
            }
            return;
        }
        pk_cursor_skip(&at, (content_bytes + align - 1) / align * align);
    }
}

/* .eh_frame begins where its header says, and ends with its segment at the latest. */
static void set_frames(pk_elf *elf, uint64_t address)
{
    for (size_t i = 0; i < elf->segment_count; i++) {
        const pk_segment *segment = &elf->segments[i];
        if (address >= segment->address && address - segment->address < segment->size_bytes) {
            uint64_t skipped = address - segment->address;
            elf->frames_offset = segment->offset + skipped;
            elf->frames_address = address;
            elf->frames_bytes = segment->size_bytes - skipped;
        }
    }
}

static void read_index(pk_elf *elf, file from, const Elf64_Phdr *header)
{
    uint8_t head[INDEX_HEADER_BYTES];
    if (header->p_filesz < sizeof head || !read_at(from, header->p_offset, head, sizeof head) ||
        head[0] != 1 || head[1] != ENCODED_TO_ITSELF_SIGNED_4) {
        return;
    }
    int32_t distance;
    memcpy(&distance, head + 4, sizeof distance);
    set_frames(elf, header->p_vaddr + 4 + (uint64_t)(int64_t)distance);
    uint32_t count;
    memcpy(&count, head + 8, sizeof count);
    if (head[2] == ENCODED_AS_UNSIGNED_4 && head[3] == ENCODED_TO_TABLE_SIGNED_4 &&
        count <= (header->p_filesz - sizeof head) / INDEX_ROW_BYTES) {
        elf->index_offset = header->p_offset + sizeof head;
        elf->index_count = count;
        elf->index_base = header->p_vaddr;
    }
}

/* A program that was linked without .eh_frame_hdr has at least a section of that name. */
static void find_section(pk_elf *elf, file from, const Elf64_Ehdr *header)
{
    static const char wanted[] = ".eh_frame";
    Elf64_Shdr names;
    if (header->e_shentsize != sizeof names || header->e_shnum > SECTION_LIMIT ||
        header->e_shstrndx >= header->e_shnum ||
        !read_at(from, header->e_shoff + header->e_shstrndx * sizeof names, &names,
                 sizeof names)) {
        return;
    }
    for (size_t i = 0; i < header->e_shnum; i++) {
        Elf64_Shdr section;
        char name[sizeof wanted];
        if (!read_at(from, header->e_shoff + i * sizeof section, &section, sizeof section)) {
            return;
        }
        if (section.sh_name < names.sh_size &&
            read_at(from, names.sh_offset + section.sh_name, name, sizeof name) &&
            memcmp(name, wanted, sizeof name) == 0 && section.sh_type != SHT_NOBITS &&
            is_inside(from, section.sh_offset, section.sh_size)) {
            elf->frames_offset = section.sh_offset;
            elf->frames_address = section.sh_addr;
            elf->frames_bytes = section.sh_size;
            return;
        }
    }
}

static void add_segment(pk_elf *elf, file from, const Elf64_Phdr *header)
{
    if (elf->segment_count < PK_SEGMENT_LIMIT &&
        header->p_offset < from.source->size_bytes && header->p_vaddr <= INT64_MAX) {
        uint64_t left = from.source->size_bytes - header->p_offset;
        elf->segments[elf->segment_count++] = (pk_segment){
            .offset = header->p_offset,
            .address = header->p_vaddr,
            .size_bytes = header->p_filesz < left ? header->p_filesz : left,
            .is_executable = (header->p_flags & PF_X) != 0,
        };
    }
}

/* Calls for each program header of a kind what reads it. */
static int visit(pk_elf *elf, file from, const Elf64_Ehdr *header, uint32_t kind,
                 void (*read)(pk_elf *, file, const Elf64_Phdr *))
{
    for (size_t i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr program;
        if (!read_at(from, header->e_phoff + i * sizeof program, &program, sizeof program)) {
            return EBADMSG;
        }
        if (program.p_type == kind) {
            read(elf, from, &program);
        }
    }
    return 0;
}

int pk_elf_read(pk_elf *elf, pk_blocks *blocks, const pk_source *source)
{
    memset(elf, 0, sizeof *elf);
    file from = {blocks, source};
    Elf64_Ehdr header;
    if (!read_at(from, 0, &header, sizeof header) ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64 ||
        header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > PROGRAM_HEADER_LIMIT ||
        header.e_phoff > source->size_bytes || header.e_shoff > INT64_MAX) {
        return EBADMSG;
    }
    int error = visit(elf, from, &header, PT_LOAD, add_segment);
    if (error == 0) {
        error = visit(elf, from, &header, PT_NOTE, read_notes);
    }
    if (error == 0) {
        error = visit(elf, from, &header, PT_GNU_EH_FRAME, read_index);
    }
    if (error == 0 && elf->frames_bytes == 0 && header.e_shoff != 0) {
        find_section(elf, from, &header);
    }
    return error;
}
