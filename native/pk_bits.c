/* The adaptive Rice code of pk_bits.h. */
#include "pk_bits.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
    BLOCK_COUNT = 8,      /* differences that set the parameter of the next ones */
    QUOTIENT_LIMIT = 20,
    PARAMETER_MAX = 32,   /* a code of quotient and rest fits what is read ahead, 57 bits */
    CODE_BITS_MAX = QUOTIENT_LIMIT + 64,
};
static const uint64_t SIZE_MAX_COUNTED = 1ULL << 40; /* so that eight of them do not overflow */

/* A difference as a number from 0 on: 0, 1, -1, 2 ... and, where it cannot be negative any more,
 * the count itself. */
static uint64_t fold_difference(uint64_t count, uint64_t expected)
{
    if (count > 2 * expected) {
        return count;
    }
    return count > expected ? 2 * (count - expected) - 1 : 2 * (expected - count);
}

static inline uint64_t unfold_difference(uint64_t folded, uint64_t expected)
{
    uint64_t half = folded >> 1;
    uint64_t near = (folded & 1) != 0 ? expected + half + 1 : expected - half;
    return folded > 2 * expected ? folded : near;
}

/* The parameter that suits a geometric distribution of the block's mean: log2(mean * ln 2). */
static inline uint32_t find_parameter(uint64_t block_sum)
{
    uint64_t scaled = (block_sum * 177) >> 11;
    uint32_t bit_count = scaled == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(scaled);
    return bit_count < PARAMETER_MAX ? bit_count : PARAMETER_MAX;
}

static inline uint64_t limit_size(uint64_t folded)
{
    return folded < SIZE_MAX_COUNTED ? folded : SIZE_MAX_COUNTED;
}

size_t pk_bits_bound(size_t count)
{
    return (count * CODE_BITS_MAX + 7) / 8;
}

typedef struct {
    uint8_t *at;
    uint64_t waiting; /* its lowest waiting_count bits are to be written */
    uint32_t waiting_count;
} bit_writer;

static void write_bits(bit_writer *writer, uint64_t bits, uint32_t count)
{
    writer->waiting = writer->waiting << count | bits;
    writer->waiting_count += count;
    while (writer->waiting_count >= 8) {
        writer->waiting_count -= 8;
        *writer->at++ = (uint8_t)(writer->waiting >> writer->waiting_count);
    }
}

static void write_code(bit_writer *writer, uint64_t folded, uint32_t parameter)
{
    uint64_t quotient = folded >> parameter;
    if (quotient >= QUOTIENT_LIMIT) {
        write_bits(writer, 0, QUOTIENT_LIMIT);
        write_bits(writer, folded >> 32, 32);
        write_bits(writer, folded & UINT32_MAX, 32);
        return;
    }
    write_bits(writer, 1, (uint32_t)quotient + 1);
    write_bits(writer, folded & ((1ULL << parameter) - 1), parameter);
}

size_t pk_bits_encode(const uint64_t *counts, size_t count, uint8_t *ret)
{
    bit_writer writer = {.at = ret};
    uint64_t block_sum = 0;
    uint64_t before[2] = {0, 0};
    uint32_t parameter = 0;
    for (size_t i = 0; i < count; i++) {
        if (i % BLOCK_COUNT == 0) {
            parameter = find_parameter(block_sum);
            block_sum = 0;
        }
        uint64_t folded = fold_difference(counts[i], (before[0] + before[1]) / 2);
        write_code(&writer, folded, parameter);
        block_sum += limit_size(folded);
        before[1] = before[0];
        before[0] = counts[i];
    }
    if (writer.waiting_count > 0) {
        write_bits(&writer, 0, 8 - writer.waiting_count);
    }
    return (size_t)(writer.at - ret);
}

/* Bits from `bit` on; behind the end there are zeros. */
static inline uint64_t peek_at_end(const uint8_t *bytes, size_t size_bytes, size_t bit)
{
    uint8_t rest[8] = {0};
    size_t at = bit / 8;
    if (at < size_bytes) {
        memcpy(rest, bytes + at, size_bytes - at < 8 ? size_bytes - at : 8);
    }
    uint64_t word;
    memcpy(&word, rest, sizeof(word));
    return __builtin_bswap64(word) << bit % 8;
}

/* At least 57 bits from `bit` on. */
static inline uint64_t peek(const uint8_t *bytes, size_t size_bytes, size_t bit)
{
    if (bit / 8 + 8 > size_bytes) {
        return peek_at_end(bytes, size_bytes, bit);
    }
    uint64_t word;
    memcpy(&word, bytes + bit / 8, sizeof(word));
    return __builtin_bswap64(word) << bit % 8;
}

/* Reads one code at *bit, which is moved on. */
static inline uint64_t read_code(const uint8_t *bytes, size_t size_bytes, size_t *bit,
                                 uint32_t parameter)
{
    uint64_t word = peek(bytes, size_bytes, *bit);
    if (word >> (64 - QUOTIENT_LIMIT) == 0) {
        uint64_t high = peek(bytes, size_bytes, *bit + QUOTIENT_LIMIT) >> 32;
        uint64_t low = peek(bytes, size_bytes, *bit + QUOTIENT_LIMIT + 32) >> 32;
        *bit += CODE_BITS_MAX;
        return high << 32 | low;
    }
    uint32_t quotient = (uint32_t)__builtin_clzll(word);
    uint64_t rest = (word << quotient << 1) >> 1 >> (63 - parameter);
    *bit += quotient + 1 + parameter;
    return (uint64_t)quotient << parameter | rest;
}

int pk_bits_decode(const uint8_t *bytes, size_t size_bytes, size_t count, uint64_t *ret_counts,
                   uint64_t *ret_sum)
{
    size_t bit = 0;
    uint64_t before[2] = {0, 0};
    uint64_t block_sum = 0;
    uint64_t sum = 0;
    uint64_t seen = 0; /* its top bit: a count or a sum was too large */
    for (size_t done = 0; done < count && bit <= 8 * size_bytes; done += BLOCK_COUNT) {
        uint32_t parameter = find_parameter(block_sum);
        size_t end = count - done < BLOCK_COUNT ? count : done + BLOCK_COUNT;
        block_sum = 0;
        for (size_t i = done; i < end; i++) {
            uint64_t folded = read_code(bytes, size_bytes, &bit, parameter);
            uint64_t one = unfold_difference(folded, (before[0] + before[1]) / 2);
            block_sum += limit_size(folded);
            before[1] = before[0];
            before[0] = one & INT64_MAX;
            ret_counts[i] = one;
            sum += one & INT64_MAX;
            seen |= one | sum;
        }
    }
    bool is_exact = (bit + 7) / 8 == size_bytes;
    *ret_sum = sum;
    return is_exact && seen >> 63 == 0 ? 0 : EBADMSG;
}
