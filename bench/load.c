/* A load generator for model servers: one thread, epoll, closed loop, keep-alive.

   load --port N --mix FILE --tokens FILE [--conns N] [--seconds S] [--requests N] [--ramp S] [--drain S] [--seed N]

   Each connection sends one request after another until the time or the number of requests is over, then the running
   ones get --drain seconds to end. SIGTERM ends it at once. The result is one JSON object on stdout.

   FILE of --mix has one kind of request a line, `name=value` pairs separated by spaces:
     name=chat path=/v1/chat/completions body=FILE   what is sent (POST)
     weight=70                                       how often, among the others (1)
     token=good|bad|none                             a token of the --tokens file, one with a broken signature, or none
     expect=200                                      the status that is right; 0: the connection breaks off mid-answer
     chunks=64                                       the events that are right (0: not checked)
     abort=30                                        of 1000 requests, so many are left by the client, at a random point

   An event is a line that begins with "data:", other than [DONE], of text/event-stream, or a line of x-ndjson. */
#define _GNU_SOURCE
#include "http1.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define KINDS 32
#define SILENCE_NS 60000000000ull /* without a byte for this long, a request has failed */
#define RETRY_NS 10000000ull      /* a refused connection is tried again after this */

/* Times, in 1/256 steps of each power of two: read back within 0.4 %. */

struct times {
    uint32_t count[57 * 256];
    uint64_t n, max, sum;
};

static void times_add(struct times *t, uint64_t ns)
{
    int shift = ns < 512 ? 0 : 55 - __builtin_clzll(ns);
    t->count[shift * 256 + (int)(ns >> shift)]++;
    t->n++;
    t->sum += ns;
    t->max = ns > t->max ? ns : t->max;
}

static double times_us(const struct times *t, double part)
{
    uint64_t wanted = (uint64_t)((double)(t->n - 1) * part) + 1, seen = 0;
    for (int i = 0; t->n && i < 57 * 256; i++)
        if ((seen += t->count[i]) >= wanted) {
            int shift = i < 512 ? 0 : i / 256 - 1;
            uint64_t low = shift ? (uint64_t)(i - shift * 256) << shift : (uint64_t)i;
            return ((double)low + (double)((1ull << shift) - 1) / 2) / 1e3;
        }
    return 0;
}

static void times_print(const char *name, const struct times *t)
{
    if (!t->n) {
        printf(", \"%s\": null", name);
        return;
    }
    printf(", \"%s\": {\"n\": %llu, \"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, \"p999\": %.2f, \"max\": %.2f, "
           "\"mean\": %.2f}",
           name, (unsigned long long)t->n, times_us(t, 0.5), times_us(t, 0.9), times_us(t, 0.99), times_us(t, 0.999),
           (double)t->max / 1e3, (double)t->sum / (double)t->n / 1e3);
}

/* What is sent. */

enum token { TOKEN_GOOD, TOKEN_BAD, TOKEN_NONE };

struct kind {
    char name[32], path[256];
    int weight, expect, chunks, abort;
    enum token token;
    struct bytes body;
    long ok, aborted;
};

enum fault {
    NO_FAULT,
    CONNECT,
    CLOSED_BEFORE_ANSWER,
    BROKEN_OFF,
    MALFORMED,
    WRONG_STATUS,
    WRONG_CHUNKS,
    NO_LAST_FRAME,
    NOT_BROKEN_OFF,
    SILENT,
    UNFINISHED,
    FAULTS
};

static const char *const FAULT_NAMES[FAULTS] = {"",
                                                "connect",
                                                "closed_before_answer",
                                                "broken_off",
                                                "malformed",
                                                "wrong_status",
                                                "wrong_chunks",
                                                "no_last_frame",
                                                "not_broken_off",
                                                "silent",
                                                "unfinished"};

enum state { WAITING, SENDING, HEAD, BODY, OVER };
enum framing { LENGTH, CHUNKED, UNTIL_CLOSE };
enum leaving { STAYS, LEAVES_SENDING, LEAVES_SENT, LEAVES_READING };

struct client {
    int fd, fresh, waits_for_room, number;
    enum state state;
    struct kind *kind;
    enum leaving leaving;
    size_t leave_at; /* bytes sent, or bytes of the answer received */
    struct bytes head;
    size_t sent, received;
    struct bytes answer, line;
    int status, last, events_are_lines, has_events, events, last_frame;
    enum framing framing;
    uint64_t left, start_at, started, heard, last_event;
    struct chunked chunked;
};

static struct {
    int port, conns;
    double seconds, ramp, drain;
    long requests;
    const char *mix, *tokens;
    uint64_t random;
} options = {.conns = 1, .seconds = 5, .drain = 30, .random = 88172645463325252ull};

static struct kind kinds[KINDS];
static struct client *clients;
static char **tokens;
static int kind_count, token_count, weight_sum, epoll_fd, active, waiting;
static volatile sig_atomic_t told_to_stop;
static int stopping;
static struct times latency, ttft, gaps;
static long ok, begun, errors[FAULTS], left[4], chunks, coalesced, connects;
static int odd_status;
static unsigned long long bytes_in, bytes_out;

static uint64_t random_below(uint64_t n)
{
    uint64_t x = options.random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    options.random = x;
    return (x >> 11) % n;
}

static struct kind *choose_kind(void)
{
    int at = (int)random_below((uint64_t)weight_sum);
    struct kind *k = kinds;
    while ((at -= k->weight) >= 0)
        k++;
    return k;
}

static size_t request_size(const struct client *c)
{
    return c->head.len + c->kind->body.len;
}

static void choose_leaving(struct client *c)
{
    c->leaving = STAYS;
    if ((int)random_below(1000) >= c->kind->abort)
        return;
    c->leaving = LEAVES_SENDING + (enum leaving)random_below(3);
    if (c->leaving == LEAVES_SENDING)
        c->leave_at = 1 + random_below(request_size(c) - 1);
    else if (c->leaving == LEAVES_READING)
        c->leave_at = 1 + random_below(1ull << (4 + random_below(12)));
}

static void write_head(struct client *c)
{
    char line[512];
    const struct kind *k = c->kind;
    c->head.len = 0;
    bytes_add(&c->head, line,
              (size_t)snprintf(line, sizeof line,
                               "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nuser-agent: bench\r\naccept: */*\r\n"
                               "content-type: application/json\r\ncontent-length: %zu\r\n",
                               k->path, options.port, k->body.len));
    if (k->token != TOKEN_NONE) {
        const char *token = tokens[c->number % token_count];
        size_t n = strlen(token);
        bytes_add(&c->head, "authorization: Bearer ", 22);
        bytes_add(&c->head, token, n);
        if (k->token == TOKEN_BAD) /* a character in the middle of the signature */
            c->head.at[c->head.len - 20] = c->head.at[c->head.len - 20] == 'A' ? 'B' : 'A';
        bytes_add(&c->head, "\r\n", 2);
    }
    bytes_add(&c->head, "\r\n", 2);
}

/* Connections. */

static void watch(struct client *c, int op, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, op, c->fd, &e))
        die("epoll_ctl");
}

static int open_connection(struct client *c)
{
    int yes = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    connects++;
    c->fresh = c->waits_for_room = 1;
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS)
        return 0;
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
    return 1;
}

static void close_connection(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void wait_until(struct client *c, uint64_t at)
{
    waiting += c->state != WAITING;
    c->state = WAITING;
    c->start_at = at;
}

static void send_request(struct client *c);
static void fail(struct client *c, enum fault fault);

static void begin(struct client *c)
{
    waiting -= c->state == WAITING;
    if (stopping || (options.requests && begun >= options.requests)) {
        close_connection(c);
        c->state = OVER;
        active--;
        return;
    }
    begun++;
    c->kind = choose_kind();
    write_head(c);
    choose_leaving(c);
    c->state = SENDING;
    c->sent = c->received = 0;
    c->answer.len = c->line.len = 0;
    c->events = c->last_frame = c->status = 0;
    c->started = c->heard = now_ns();
    if (c->fd >= 0)
        send_request(c);
    else if (!open_connection(c))
        fail(c, CONNECT);
}

/* How requests end. */

static void again(struct client *c, uint64_t pause)
{
    if (pause)
        wait_until(c, now_ns() + pause);
    else
        begin(c);
}

static void fail(struct client *c, enum fault fault)
{
    errors[fault]++;
    close_connection(c);
    again(c, RETRY_NS);
}

/* Half of those who leave do so with a reset. */
static void leave(struct client *c)
{
    struct linger reset = {1, 0};
    left[c->leaving]++;
    c->kind->aborted++;
    if (random_below(2))
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close_connection(c);
    again(c, 1);
}

static enum fault judge(const struct client *c)
{
    const struct kind *k = c->kind;
    if (!k->expect)
        return NOT_BROKEN_OFF;
    if (c->status != k->expect)
        return WRONG_STATUS;
    if (c->has_events && !c->last_frame)
        return NO_LAST_FRAME;
    return k->chunks && c->events != k->chunks ? WRONG_CHUNKS : NO_FAULT;
}

static void succeed(struct client *c)
{
    ok++;
    c->kind->ok++;
    times_add(&latency, now_ns() - c->started);
}

static void complete(struct client *c)
{
    enum fault fault = judge(c);
    if (fault == WRONG_STATUS)
        odd_status = c->status;
    if (fault) {
        fail(c, fault);
        return;
    }
    succeed(c);
    if (c->last || c->sent < request_size(c))
        close_connection(c);
    c->fresh = 0;
    begin(c);
}

static void ended_by_peer(struct client *c)
{
    if (c->state == BODY && c->framing == UNTIL_CLOSE) {
        c->last = 1;
        complete(c);
    } else if (c->state == BODY && !c->kind->expect && c->status == 200) {
        succeed(c);
        close_connection(c);
        begin(c);
    } else
        fail(c, c->state == BODY ? BROKEN_OFF : c->sent ? CLOSED_BEFORE_ANSWER : CONNECT);
}

/* Answers. */

static int begins(const struct bytes *line, const char *text)
{
    size_t n = strlen(text);
    return line->len >= n && !memcmp(line->at, text, n);
}

static int is_event(const struct client *c)
{
    if (c->events_are_lines)
        return c->line.len > 1;
    return begins(&c->line, "data:") && !begins(&c->line, "data: [DONE]");
}

static int is_last_frame(const struct client *c)
{
    if (c->events_are_lines)
        return memmem(c->line.at, c->line.len, "\"done\":true", 11) != NULL;
    return begins(&c->line, "data: [DONE]") || begins(&c->line, "event: message_stop") ||
           begins(&c->line, "event: response.completed");
}

/* Returns how many events end in this piece. A line is kept up to 1 KiB. */
static int count_events(struct client *c, const char *at, size_t n)
{
    int found = 0;
    const char *end = at + n, *stop;
    while ((stop = memchr(at, '\n', (size_t)(end - at)))) {
        size_t len = (size_t)(stop - at) + 1;
        bytes_add(&c->line, at, c->line.len < 1024 ? len : 0);
        found += is_event(c);
        c->last_frame |= is_last_frame(c);
        c->line.len = 0;
        at = stop + 1;
    }
    bytes_add(&c->line, at, c->line.len < 1024 ? (size_t)(end - at) : 0);
    return found;
}

/* `found` events came in one read: the first one ends a gap, the others were waiting behind it. */
static void note_events(struct client *c, int found)
{
    uint64_t now = now_ns();
    if (!found)
        return;
    if (!c->events)
        times_add(&ttft, now - c->started);
    else
        times_add(&gaps, now - c->last_event);
    c->last_event = now;
    c->events += found;
    chunks += found;
    coalesced += found - 1;
}

static int read_head(struct client *c)
{
    size_t n;
    const char *value, *end = c->answer.len ? memmem(c->answer.at, c->answer.len, "\r\n\r\n", 4) : NULL;
    if (!end)
        return 0;
    size_t len = (size_t)(end - c->answer.at) + 4;
    const char *head = c->answer.at;
    if (sscanf(head, "HTTP/1.%*d %d", &c->status) != 1)
        c->status = -1;
    value = field(head, len, "content-length", &n);
    c->left = value ? strtoull(value, NULL, 10) : 0;
    c->framing = value ? LENGTH : UNTIL_CLOSE;
    if (field_is(head, len, "transfer-encoding", "chunked"))
        c->framing = CHUNKED;
    c->last = field_is(head, len, "connection", "close");
    value = field(head, len, "content-type", &n);
    c->events_are_lines = value && n >= 20 && !strncasecmp(value, "application/x-ndjson", 20);
    c->has_events = c->events_are_lines || (value && n >= 17 && !strncasecmp(value, "text/event-stream", 17));
    c->chunked = (struct chunked){0};
    bytes_drop(&c->answer, len);
    c->state = c->status / 100 == 1 ? HEAD : BODY;
    return 1;
}

/* Takes body bytes from `at`; returns 1 when the body is complete, -1 when it makes no sense. */
static int read_body(struct client *c, const char *at, size_t n)
{
    int found = 0, over = 0;
    if (c->framing == CHUNKED) {
        const char *piece;
        size_t len, took;
        while ((took = chunked_read(&c->chunked, at, n, &piece, &len))) {
            found += c->has_events && len ? count_events(c, piece, len) : 0;
            at += took;
            n -= took;
        }
        over = c->chunked.state == CHUNK_DONE && !n ? 1 : c->chunked.state >= CHUNK_DONE ? -1 : 0;
    } else {
        found = c->has_events && n ? count_events(c, at, n) : 0;
        if (c->framing == LENGTH && n > c->left)
            return -1;
        c->left -= c->framing == LENGTH ? n : 0;
        over = c->framing == LENGTH && !c->left;
    }
    note_events(c, found);
    return over;
}

static void judge_body(struct client *c, int over)
{
    if (over < 0)
        fail(c, MALFORMED);
    else if (over)
        complete(c);
    else if (c->leaving == LEAVES_READING && c->received >= c->leave_at)
        leave(c);
}

static void take(struct client *c, const char *piece, size_t n)
{
    bytes_in += n;
    c->received += n;
    c->heard = now_ns();
    if (c->state == BODY) {
        judge_body(c, read_body(c, piece, n));
        return;
    }
    bytes_add(&c->answer, piece, n);
    while (c->state != BODY && read_head(c))
        ;
    if (c->status < 0 || (c->state != BODY && c->answer.len > HEAD_LIMIT))
        fail(c, MALFORMED);
    else if (c->state == BODY)
        judge_body(c, read_body(c, c->answer.at, c->answer.len));
    else if (c->leaving == LEAVES_READING && c->received >= c->leave_at)
        leave(c);
}

static void receive(struct client *c)
{
    static char piece[256 * 1024];
    ssize_t n = recv(c->fd, piece, sizeof piece, 0);
    if (n > 0)
        take(c, piece, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        ended_by_peer(c);
}

/* Requests. */

static int gather(const struct client *c, size_t limit, struct iovec *parts)
{
    size_t from = c->sent, head = c->head.len;
    int n = 0;
    if (from < head) {
        parts[n].iov_base = c->head.at + from;
        parts[n++].iov_len = (limit < head ? limit : head) - from;
        from = head;
    }
    if (from < limit) {
        parts[n].iov_base = c->kind->body.at + (from - head);
        parts[n++].iov_len = limit - from;
    }
    return n;
}

static void wait_for_room(struct client *c, int waits)
{
    if (c->waits_for_room != waits)
        watch(c, EPOLL_CTL_MOD, EPOLLIN | (waits ? EPOLLOUT : 0));
    c->waits_for_room = waits;
}

static void send_request(struct client *c)
{
    struct iovec parts[2];
    size_t limit = c->leaving == LEAVES_SENDING ? c->leave_at : request_size(c);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)gather(c, limit, parts)};
    ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
    c->sent += n > 0 ? (size_t)n : 0;
    bytes_out += n > 0 ? (size_t)n : 0;
    /* After an error there may still be an answer to read: reading tells. */
    wait_for_room(c, c->sent < limit && (n >= 0 || errno == EAGAIN || errno == EINTR));
    if (c->sent < limit)
        return;
    if (c->state == SENDING)
        c->state = HEAD;
    if (c->leaving == LEAVES_SENDING || c->leaving == LEAVES_SENT)
        leave(c);
}

static void serve(struct client *c, uint32_t events)
{
    int fd = c->fd;
    if (fd < 0 || c->state == OVER)
        return;
    if (events & EPOLLOUT && c->waits_for_room && c->state != WAITING)
        send_request(c);
    if (c->fd == fd && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(c);
}

/* The loop. */

static void start_waiting(uint64_t now)
{
    for (int i = 0; waiting && i < options.conns; i++)
        if (clients[i].state == WAITING && (clients[i].start_at <= now || stopping))
            begin(&clients[i]);
}

static void check_silence(uint64_t now)
{
    for (int i = 0; i < options.conns; i++) {
        struct client *c = &clients[i];
        if (c->state != WAITING && c->state != OVER && now > c->heard + SILENCE_NS)
            fail(c, SILENT);
    }
}

static void stop_running(void)
{
    for (int i = 0; i < options.conns; i++)
        if (clients[i].state != OVER && clients[i].state != WAITING) {
            errors[UNFINISHED]++;
            close_connection(&clients[i]);
            clients[i].state = OVER;
        }
}

static void wait_once(uint64_t until)
{
    struct epoll_event events[256];
    uint64_t now = now_ns();
    int left_ms = now < until ? (int)((until - now) / 1000000) + 1 : 0;
    int n = epoll_wait(epoll_fd, events, 256, waiting ? 1 : left_ms < 1000 ? left_ms : 1000);
    for (int i = 0; i < n; i++)
        serve(events[i].data.ptr, events[i].events);
}

static double run(void)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(options.seconds * 1e9), checked = start;
    for (int i = 0; i < options.conns; i++) {
        clients[i].state = OVER; /* not WAITING yet */
        wait_until(&clients[i], start + (uint64_t)(options.ramp * 1e9 * i / options.conns));
    }
    active = options.conns;
    while (active > 0 && !told_to_stop) {
        uint64_t now = now_ns();
        if (!stopping && now >= end) {
            stopping = 1;
            end = now + (uint64_t)(options.drain * 1e9);
        } else if (stopping && now >= end)
            break;
        if (waiting)
            start_waiting(now);
        if (now > checked + 1000000000ull)
            check_silence(checked = now);
        if (active > 0)
            wait_once(end);
    }
    double took = (double)(now_ns() - start) / 1e9;
    stop_running();
    return took;
}

/* Options and result. */

static void read_pair(struct kind *k, const char *name, const char *value)
{
    if (!strcmp(name, "name"))
        snprintf(k->name, sizeof k->name, "%s", value);
    else if (!strcmp(name, "path"))
        snprintf(k->path, sizeof k->path, "%s", value);
    else if (!strcmp(name, "body"))
        k->body = read_file(value);
    else if (!strcmp(name, "weight"))
        k->weight = atoi(value);
    else if (!strcmp(name, "expect"))
        k->expect = atoi(value);
    else if (!strcmp(name, "chunks"))
        k->chunks = atoi(value);
    else if (!strcmp(name, "abort"))
        k->abort = atoi(value);
    else if (!strcmp(name, "token"))
        k->token = !strcmp(value, "bad") ? TOKEN_BAD : !strcmp(value, "none") ? TOKEN_NONE : TOKEN_GOOD;
}

static void read_kind(char *line)
{
    struct kind *k = &kinds[kind_count];
    char *pair, *equals;
    *k = (struct kind){.weight = 1, .expect = 200};
    for (pair = strtok(line, " \r\t"); pair; pair = strtok(NULL, " \r\t"))
        if ((equals = strchr(pair, '='))) {
            *equals = 0;
            read_pair(k, pair, equals + 1);
        }
    if (!k->path[0] || k->weight < 1 || kind_count + 1 == KINDS) {
        fprintf(stderr, "load: a line of the mix has no path or no weight, or there are too many\n");
        exit(2);
    }
    weight_sum += k->weight;
    kind_count++;
}

/* Calls `each` for every line that is not empty. The text stays allocated. */
static void each_line(const char *file, void (*each)(char *))
{
    struct bytes text = read_file(file);
    bytes_add(&text, "", 1);
    for (char *line = text.at, *next; line; line = next) {
        if ((next = strchr(line, '\n')))
            *next++ = 0;
        if (*line)
            each(line);
    }
}

static void read_token(char *line)
{
    if (!(tokens = realloc(tokens, sizeof *tokens * (size_t)(token_count + 1))))
        die("out of memory");
    tokens[token_count++] = line;
}

static void read_option(const char *name, const char *value)
{
    if (!strcmp(name, "--port"))
        options.port = atoi(value);
    else if (!strcmp(name, "--mix"))
        options.mix = value;
    else if (!strcmp(name, "--tokens"))
        options.tokens = value;
    else if (!strcmp(name, "--conns"))
        options.conns = atoi(value);
    else if (!strcmp(name, "--seconds"))
        options.seconds = atof(value);
    else if (!strcmp(name, "--requests"))
        options.requests = atol(value);
    else if (!strcmp(name, "--ramp"))
        options.ramp = atof(value);
    else if (!strcmp(name, "--drain"))
        options.drain = atof(value);
    else if (!strcmp(name, "--seed"))
        options.random ^= strtoull(value, NULL, 10) * 0x9E3779B97F4A7C15ull;
}

static void print_faults(void)
{
    const char *between = "";
    printf(", \"errors\": {");
    for (int i = 1; i < FAULTS; i++)
        if (errors[i]) {
            printf("%s\"%s\": %ld", between, FAULT_NAMES[i], errors[i]);
            between = ", ";
        }
    printf("}, \"odd_status\": %d", odd_status);
}

static void print_kinds(void)
{
    printf(", \"kinds\": {");
    for (int i = 0; i < kind_count; i++)
        printf("%s\"%s\": {\"ok\": %ld, \"aborted\": %ld}", i ? ", " : "", kinds[i].name, kinds[i].ok, kinds[i].aborted);
    printf("}");
}

static void print_result(double seconds)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"seconds\": %.6f, \"requests\": %ld, \"ok\": %ld, \"chunks\": %ld, \"coalesced\": %ld, \"connects\": %ld, "
           "\"bytes_in\": %llu, \"bytes_out\": %llu",
           seconds, begun, ok, chunks, coalesced, connects, bytes_in, bytes_out);
    printf(", \"cpu_seconds\": %.6f", (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                                          (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    times_print("latency_us", &latency);
    times_print("ttft_us", &ttft);
    times_print("gap_us", &gaps);
    printf(", \"left\": {\"sending\": %ld, \"sent\": %ld, \"reading\": %ld}", left[LEAVES_SENDING], left[LEAVES_SENT],
           left[LEAVES_READING]);
    print_faults();
    print_kinds();
    printf("}\n");
}

static void on_term(int signal_number)
{
    (void)signal_number;
    told_to_stop = 1;
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2)
        read_option(argv[i], argv[i + 1]);
    if (!options.port || !options.mix || !options.tokens || options.conns < 1) {
        fprintf(stderr, "usage: load --port N --mix FILE --tokens FILE [--conns N] [--seconds S] [--requests N] ...\n");
        return 2;
    }
    each_line(options.mix, read_kind);
    each_line(options.tokens, read_token);
    signal(SIGTERM, on_term);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    allow_many_files();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)options.conns, sizeof *clients);
    for (int i = 0; i < options.conns; i++)
        clients[i] = (struct client){.fd = -1, .number = i};
    print_result(run());
    return 0;
}
