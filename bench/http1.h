/* What the engine and the load generator both need: a clock, growing buffers, and HTTP/1.1's chunked coding. */
#ifndef BENCH_HTTP1_H
#define BENCH_HTTP1_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <time.h>

#define HEAD_LIMIT (64 * 1024)

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Thousands of connections need more descriptors than a shell allows by default. */
static inline void allow_many_files(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

struct bytes {
    char *at;
    size_t len, cap;
};

static inline void bytes_add(struct bytes *b, const void *piece, size_t n)
{
    if (b->len + n > b->cap) {
        b->cap = (b->len + n) * 2;
        if (!(b->at = realloc(b->at, b->cap)))
            die("out of memory");
    }
    if (n)
        memcpy(b->at + b->len, piece, n);
    b->len += n;
}

static inline void bytes_drop(struct bytes *b, size_t n)
{
    if (n && n < b->len)
        memmove(b->at, b->at + n, b->len - n);
    b->len -= n;
}

static inline void bytes_free(struct bytes *b)
{
    free(b->at);
    *b = (struct bytes){0};
}

static inline struct bytes read_file(const char *path)
{
    struct bytes out = {0};
    char piece[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f)
        die(path);
    while ((n = fread(piece, 1, sizeof piece, f)))
        bytes_add(&out, piece, n);
    fclose(f);
    return out;
}

/* The value of a field in a head, without the spaces around it; NULL when it is not there. */
static inline const char *field(const char *head, size_t len, const char *name, size_t *value_len)
{
    size_t name_len = strlen(name);
    const char *end = head + len, *line = memchr(head, '\n', len);
    while (line && ++line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            return NULL;
        if ((size_t)(stop - line) > name_len && line[name_len] == ':' && !strncasecmp(line, name, name_len)) {
            const char *value = line + name_len + 1;
            while (value < stop && (*value == ' ' || *value == '\t'))
                value++;
            while (stop > value && (stop[-1] == '\r' || stop[-1] == ' '))
                stop--;
            *value_len = (size_t)(stop - value);
            return value;
        }
        line = stop;
    }
    return NULL;
}

static inline int field_is(const char *head, size_t len, const char *name, const char *wanted)
{
    size_t n;
    const char *value = field(head, len, name, &n);
    return value && n == strlen(wanted) && !strncasecmp(value, wanted, n);
}

/* Chunked coding (RFC 9112 section 7.1), a byte range at a time. */
enum chunk_state { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_BODY, CHUNK_BODY_END, CHUNK_TRAILER, CHUNK_DONE, CHUNK_BAD };

struct chunked {
    enum chunk_state state;
    uint64_t left;
    int digits, line;
};

static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline void chunked_size_over(struct chunked *c)
{
    c->state = c->digits == 0 ? CHUNK_BAD : c->left ? CHUNK_BODY : CHUNK_TRAILER;
    c->digits = c->line = 0;
}

static inline void chunked_control(struct chunked *c, char byte)
{
    int digit;
    switch (c->state) {
    case CHUNK_SIZE:
        if ((digit = hex_digit(byte)) >= 0 && c->digits++ < 15)
            c->left = c->left * 16 + (uint64_t)digit;
        else if (byte == '\n')
            chunked_size_over(c);
        else if (byte == ';' || byte == ' ')
            c->state = CHUNK_EXTENSION;
        else if (byte != '\r')
            c->state = CHUNK_BAD;
        break;
    case CHUNK_EXTENSION:
        if (byte == '\n')
            chunked_size_over(c);
        break;
    case CHUNK_BODY_END:
        if (byte == '\n')
            c->state = CHUNK_SIZE;
        else if (byte != '\r')
            c->state = CHUNK_BAD;
        break;
    case CHUNK_TRAILER:
        if (byte == '\n' && c->line == 0)
            c->state = CHUNK_DONE;
        else if (byte == '\n')
            c->line = 0;
        else if (byte != '\r')
            c->line++;
        break;
    default:
        break;
    }
}

/* Reads from `at`, sets *piece to body bytes found (or NULL), returns how many input bytes it took.
   Call again until it takes none, or the state is CHUNK_DONE or CHUNK_BAD. */
static inline size_t chunked_read(struct chunked *c, const char *at, size_t n, const char **piece, size_t *piece_len)
{
    size_t taken = 0;
    *piece = NULL;
    *piece_len = 0;
    while (taken < n && c->state < CHUNK_DONE) {
        if (c->state == CHUNK_BODY) {
            *piece = at + taken;
            *piece_len = n - taken < c->left ? n - taken : (size_t)c->left;
            c->left -= *piece_len;
            if (!c->left)
                c->state = CHUNK_BODY_END;
            return taken + *piece_len;
        }
        chunked_control(c, at[taken++]);
    }
    return taken;
}

#endif
