/* A neutral model server for benchmarks: one thread, epoll, nothing computed.

   engine [--port N] [--jwks FILE]        prints {"port": N} once it listens on 127.0.0.1.

   A POST is answered in the dialect of its path: /v1/chat/completions, /v1/messages, /v1/responses (SSE),
   /api/ (NDJSON). "stream" in the body says whether it streams (/api/ streams unless it says false), "model" how:
     bench-<chunks>x<us>      this many chunks, one every <us> microseconds (0: as fast as the socket takes them)
     bench-cut-<chunks>x<us>  the same, but the connection breaks before the last chunk
     bench-bytes-<n>          an answer of about n bytes, not streamed
     bench-status-<code>      an error with that status
   The first chunk leaves at once. The last one carries the dialect's final frame.
   GET /stats: counters. GET /.well-known/jwks.json: FILE. Connections that only asked for those are not counted. */
#define _GNU_SOURCE
#include "http1.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define KEPT_BODY 16384      /* of a request body: enough to find "model" and "stream" */

enum reading { READ_HEAD, READ_LENGTH, READ_CHUNKED, READ_NOTHING };

struct dialect {
    const char *path, *type, *opening, *piece, *closing, *whole;
    int streams_unasked;
};

static const struct dialect DIALECTS[] = {
    {"/v1/chat/completions", "text/event-stream", "",
     "data: {\"id\":\"chatcmpl-b\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"bench\","
     "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word%d\"},\"finish_reason\":null}]}\n\n",
     "data: {\"id\":\"chatcmpl-b\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"bench\","
     "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],"
     "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":%d,\"total_tokens\":100}}\n\ndata: [DONE]\n\n",
     "{\"id\":\"chatcmpl-b\",\"object\":\"chat.completion\",\"created\":1767225600,\"model\":\"bench\",\"choices\":"
     "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"stop\"}],"
     "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":40,\"total_tokens\":52}}", 0},
    {"/v1/messages", "text/event-stream",
     "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_b\",\"type\":\"message\","
     "\"role\":\"assistant\",\"model\":\"bench\",\"content\":[],\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\n"
     "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
     "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
     "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
     "\"delta\":{\"type\":\"text_delta\",\"text\":\" word%d\"}}\n\n",
     "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
     "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},"
     "\"usage\":{\"output_tokens\":%d}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
     "{\"id\":\"msg_b\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"bench\",\"content\":[{\"type\":\"text\","
     "\"text\":\"%s\"}],\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":12,\"output_tokens\":40}}", 0},
    {"/v1/responses", "text/event-stream",
     "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_b\"}}\n\n",
     "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\" word%d\"}\n\n",
     "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_b\","
     "\"status\":\"completed\",\"usage\":{\"input_tokens\":12,\"output_tokens\":%d,\"total_tokens\":100}}}\n\n",
     "{\"id\":\"resp_b\",\"object\":\"response\",\"status\":\"completed\",\"model\":\"bench\",\"output\":[{\"type\":"
     "\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"%s\"}]}],"
     "\"usage\":{\"input_tokens\":12,\"output_tokens\":40,\"total_tokens\":52}}", 0},
    {"/api/", "application/x-ndjson", "",
     "{\"model\":\"bench\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\","
     "\"content\":\" word%d\"},\"done\":false}\n",
     "{\"model\":\"bench\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},"
     "\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":12,\"eval_count\":%d}\n",
     "{\"model\":\"bench\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},"
     "\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":12,\"eval_count\":40}", 1},
};

struct conn {
    int fd;
    enum reading reading;
    struct bytes in, out, kept; /* kept: the beginning of the request's body */
    size_t out_sent;
    uint64_t body_left;
    struct chunked chunked;
    char method[8], path[256];
    int last_request, answered, control, counted, waits_for_room;
    const struct dialect *dialect;
    int streaming, cut, chunk, chunks;
    uint64_t interval, due;
    int heap_at; /* -1: not scheduled */
};

struct pointers {
    struct conn **at;
    int len, cap;
};

static struct {
    long open, total, streams_open, streams, requests, chunks, aborted;
    unsigned long long bytes_in;
} stats;

static int epoll_fd, listen_fd, timer_fd, port;
static struct bytes jwks;
static struct pointers heap, dead;
static uint64_t armed; /* what the timer stands at; 0: nothing */

static void pointers_add(struct pointers *p, struct conn *c)
{
    if (p->len == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 256;
        if (!(p->at = realloc(p->at, sizeof *p->at * (size_t)p->cap)))
            die("out of memory");
    }
    p->at[p->len++] = c;
}

/* The streams that wait for their next chunk: a binary heap by due time. */

static void heap_put(int i, struct conn *c)
{
    heap.at[i] = c;
    c->heap_at = i;
}

static void heap_up(int i)
{
    struct conn *c = heap.at[i];
    for (; i && heap.at[(i - 1) / 2]->due > c->due; i = (i - 1) / 2)
        heap_put(i, heap.at[(i - 1) / 2]);
    heap_put(i, c);
}

static void heap_down(int i)
{
    struct conn *c = heap.at[i];
    for (int child; (child = 2 * i + 1) < heap.len; i = child) {
        if (child + 1 < heap.len && heap.at[child + 1]->due < heap.at[child]->due)
            child++;
        if (heap.at[child]->due >= c->due)
            break;
        heap_put(i, heap.at[child]);
    }
    heap_put(i, c);
}

static void schedule(struct conn *c, uint64_t due)
{
    c->due = due;
    pointers_add(&heap, c);
    heap_up(heap.len - 1);
}

static void unschedule(struct conn *c)
{
    int i = c->heap_at;
    c->heap_at = -1;
    if (i < 0 || i == --heap.len)
        return;
    struct conn *moved = heap.at[heap.len];
    heap_put(i, moved);
    heap_down(i);
    heap_up(moved->heap_at);
}

static void set_timer(void)
{
    uint64_t due = heap.len ? heap.at[0]->due : 0;
    if (due == armed)
        return;
    struct itimerspec t = {{0, 0}, {(time_t)(due / 1000000000ull), (long)(due % 1000000000ull)}};
    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &t, NULL))
        die("timerfd_settime");
    armed = due;
}

/* Connections. They are freed after the round of events that closed them, since that round may still name them. */

static void watch(struct conn *c, int op, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, op, c->fd, &e))
        die("epoll_ctl");
}

static void end_stream(struct conn *c)
{
    unschedule(c);
    stats.streams_open -= c->streaming;
    c->streaming = 0;
}

static void close_conn(struct conn *c)
{
    if (c->fd < 0)
        return;
    stats.aborted += c->streaming || c->out_sent < c->out.len;
    end_stream(c);
    close(c->fd);
    c->fd = -1;
    stats.open -= !c->control;
    pointers_add(&dead, c);
}

static void free_dead(void)
{
    while (dead.len) {
        struct conn *c = dead.at[--dead.len];
        bytes_free(&c->in);
        bytes_free(&c->out);
        bytes_free(&c->kept);
        free(c);
    }
}

/* /stats and the key set are asked for by the benchmark and by whoever verifies tokens: no use of the engine. */
static void set_control(struct conn *c, int control)
{
    stats.open += c->control - control;
    stats.total += !control && !c->counted;
    c->counted |= !control;
    c->control = control;
}

static void wait_for_room(struct conn *c, int waits)
{
    if (c->waits_for_room != waits)
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDHUP | (waits ? EPOLLOUT : 0));
    c->waits_for_room = waits;
}

/* Sends what is ready. What the socket does not take now goes when it has room. */
static void flush(struct conn *c)
{
    while (c->out_sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.at + c->out_sent, c->out.len - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            wait_for_room(c, 1);
            return;
        }
        if (n < 0 && errno != EINTR) {
            close_conn(c);
            return;
        }
        c->out_sent += n > 0 ? (size_t)n : 0;
    }
    c->out.len = c->out_sent = 0;
    wait_for_room(c, 0);
    if (c->answered && c->last_request)
        close_conn(c);
}

/* Answers. */

static void say(struct conn *c, const char *text)
{
    bytes_add(&c->out, text, strlen(text));
}

static void answer(struct conn *c, const char *status, const char *body, size_t len)
{
    char head[256];
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n%s\r\n", status,
             len, c->last_request ? "connection: close\r\n" : "");
    say(c, head);
    if (strcmp(c->method, "HEAD"))
        bytes_add(&c->out, body, len);
}

static void answer_text(struct conn *c, const char *body)
{
    answer(c, "200 OK", body, strlen(body));
}

static void finish(struct conn *c)
{
    end_stream(c);
    c->answered = 1;
    c->reading = READ_HEAD;
}

/* One chunk of the stream as one HTTP chunk; the last one with its closing frame, and the end of the body. */
static void say_chunk(struct conn *c)
{
    char text[2048], size[16];
    int last = ++c->chunk == c->chunks, n = 0;
    if (c->chunk == 1)
        n = snprintf(text, sizeof text, "%s", c->dialect->opening);
    n += snprintf(text + n, sizeof text - (size_t)n, last ? c->dialect->closing : c->dialect->piece, c->chunk);
    bytes_add(&c->out, size, (size_t)snprintf(size, sizeof size, "%x\r\n", (unsigned)n));
    bytes_add(&c->out, text, (size_t)n);
    say(c, last ? "\r\n0\r\n\r\n" : "\r\n");
    stats.chunks++;
}

static void break_off(struct conn *c)
{
    end_stream(c);
    close_conn(c);
}

/* Sends the chunks that are due and schedules the next one. */
static void stream(struct conn *c)
{
    while (c->streaming && !c->waits_for_room) {
        if (c->cut && c->chunk + 1 == c->chunks) {
            break_off(c);
            return;
        }
        say_chunk(c);
        if (c->chunk == c->chunks)
            finish(c);
        flush(c);
        if (c->streaming && c->interval) {
            schedule(c, c->due + c->interval);
            return;
        }
    }
}

static void start_stream(struct conn *c)
{
    say(c, "HTTP/1.1 200 OK\r\ncontent-type: ");
    say(c, c->dialect->type);
    say(c, c->last_request ? "\r\nconnection: close" : "");
    say(c, "\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
    c->streaming = 1;
    c->chunk = 0;
    c->due = now_ns();
    stats.streams++;
    stats.streams_open++;
    stream(c);
}

static void answer_whole(struct conn *c, long bytes)
{
    static const char WORDS[] = "the quick brown fox jumps over the lazy dog ";
    char *text = malloc((size_t)bytes + 1), *body = malloc((size_t)bytes + 1024);
    if (!text || !body)
        die("out of memory");
    for (long i = 0; i < bytes; i++)
        text[i] = WORDS[i % (long)(sizeof WORDS - 1)];
    text[bytes] = 0;
    int n = snprintf(body, (size_t)bytes + 1024, c->dialect->whole, text);
    answer(c, "200 OK", body, (size_t)n);
    free(text);
    free(body);
}

static void answer_error(struct conn *c, int status)
{
    static const char BODY[] = "{\"error\":{\"message\":\"asked to fail\",\"type\":\"bench\",\"code\":\"bench\"}}";
    char line[32];
    snprintf(line, sizeof line, "%d Asked For", status);
    answer(c, line, BODY, sizeof BODY - 1);
}

static void answer_stats(struct conn *c)
{
    char body[512];
    snprintf(body, sizeof body,
             "{\"connections_open\": %ld, \"connections_total\": %ld, \"streams_open\": %ld, \"streams\": %ld, "
             "\"requests\": %ld, \"chunks\": %ld, \"aborted\": %ld, \"bytes_in\": %llu}",
             stats.open, stats.total, stats.streams_open, stats.streams, stats.requests, stats.chunks, stats.aborted,
             stats.bytes_in);
    answer_text(c, body);
}

/* The JSON value after a key, however it is spaced; NULL when the key is not in what was kept of the body. */
static const char *json_value(const struct conn *c, const char *key)
{
    const char *at = strstr(c->kept.at, key);
    if (!at)
        return NULL;
    at += strlen(key);
    return at + strspn(at, " \t\r\n:");
}

static int wants_stream(const struct conn *c)
{
    const char *value = json_value(c, "\"stream\"");
    return value ? !strncmp(value, "true", 4) : c->dialect->streams_unasked;
}

static void answer_post(struct conn *c)
{
    long n = 64, us = 0;
    const char *model = json_value(c, "\"model\"");
    model = model ? model : "";
    stats.requests++;
    if (sscanf(model, "\"bench-status-%ld", &n) == 1) {
        answer_error(c, (int)n);
        return;
    }
    if (sscanf(model, "\"bench-bytes-%ld", &n) == 1 || !wants_stream(c)) {
        answer_whole(c, strncmp(model, "\"bench-bytes-", 13) ? 160 : n);
        return;
    }
    c->cut = sscanf(model, "\"bench-cut-%ldx%ld", &n, &us) == 2;
    if (!c->cut)
        sscanf(model, "\"bench-%ldx%ld", &n, &us);
    c->chunks = n < 1 ? 1 : (int)n;
    c->interval = (uint64_t)us * 1000;
    start_stream(c);
}

static void answer_control(struct conn *c)
{
    char body[256];
    if (!strcmp(c->path, "/stats"))
        answer_stats(c);
    else if (!strcmp(c->path, "/.well-known/jwks.json"))
        answer(c, "200 OK", jwks.at, jwks.len);
    else {
        snprintf(body, sizeof body,
                 "{\"issuer\": \"http://127.0.0.1:%d\", \"jwks_uri\": \"http://127.0.0.1:%d/.well-known/jwks.json\"}", port,
                 port);
        answer_text(c, body);
    }
}

static void answer_request(struct conn *c)
{
    int control = !strcmp(c->path, "/stats") || !strncmp(c->path, "/.well-known/", 13);
    bytes_add(&c->kept, "", 1); /* strings end here */
    c->reading = READ_NOTHING;
    set_control(c, control);
    if (control)
        answer_control(c);
    else if (!strcmp(c->method, "POST"))
        answer_post(c);
    else
        answer_text(c, "{\"object\":\"list\",\"models\":[],\"data\":[]}");
    if (c->fd < 0 || c->streaming || c->answered)
        return;
    finish(c);
    flush(c);
}

/* Requests: a head, then a body of which only the beginning is kept. */

static const struct dialect *dialect_of(const char *path)
{
    for (size_t i = 0; i < sizeof DIALECTS / sizeof *DIALECTS; i++)
        if (!strncmp(path, DIALECTS[i].path, strlen(DIALECTS[i].path)))
            return &DIALECTS[i];
    return &DIALECTS[0];
}

static void keep(struct conn *c, const char *piece, size_t n)
{
    size_t room = KEPT_BODY - c->kept.len;
    stats.bytes_in += n;
    bytes_add(&c->kept, piece, n < room ? n : room);
}

static enum reading body_of(struct conn *c, const char *head, size_t len)
{
    size_t n;
    const char *value = field(head, len, "content-length", &n);
    c->body_left = value ? strtoull(value, NULL, 10) : 0;
    c->chunked = (struct chunked){0};
    return field_is(head, len, "transfer-encoding", "chunked") ? READ_CHUNKED : READ_LENGTH;
}

static void read_head(struct conn *c, size_t len)
{
    const char *head = c->in.at;
    c->method[0] = c->path[0] = 0;
    sscanf(head, "%7s %255s", c->method, c->path);
    c->dialect = dialect_of(c->path);
    c->kept.len = 0;
    c->answered = 0;
    c->last_request = field_is(head, len, "connection", "close");
    c->reading = body_of(c, head, len);
    if (field_is(head, len, "expect", "100-continue"))
        say(c, "HTTP/1.1 100 Continue\r\n\r\n");
    bytes_drop(&c->in, len);
    flush(c);
}

static int take_head(struct conn *c)
{
    const char *end = c->in.len ? memmem(c->in.at, c->in.len, "\r\n\r\n", 4) : NULL;
    if (end)
        read_head(c, (size_t)(end - c->in.at) + 4);
    else if (c->in.len > HEAD_LIMIT)
        close_conn(c);
    return end != NULL;
}

static int take_length(struct conn *c)
{
    size_t n = c->in.len < c->body_left ? c->in.len : (size_t)c->body_left;
    keep(c, c->in.at, n);
    bytes_drop(&c->in, n);
    c->body_left -= n;
    if (!c->body_left)
        answer_request(c);
    return !c->body_left;
}

static int take_chunked(struct conn *c)
{
    const char *piece;
    size_t n, taken = 0, took;
    while ((took = chunked_read(&c->chunked, c->in.at + taken, c->in.len - taken, &piece, &n))) {
        taken += took;
        keep(c, piece, n);
    }
    bytes_drop(&c->in, taken);
    if (c->chunked.state == CHUNK_BAD)
        close_conn(c);
    else if (c->chunked.state == CHUNK_DONE)
        answer_request(c);
    return c->chunked.state == CHUNK_DONE;
}

/* Takes whatever stands in `in` as far as it goes. */
static void take(struct conn *c)
{
    int more = 1;
    while (more && c->fd >= 0)
        switch (c->reading) {
        case READ_HEAD:
            more = take_head(c);
            break;
        case READ_LENGTH:
            more = take_length(c);
            break;
        case READ_CHUNKED:
            more = take_chunked(c);
            break;
        case READ_NOTHING:
            more = 0;
        }
}

static void receive(struct conn *c)
{
    static char piece[256 * 1024];
    ssize_t n = recv(c->fd, piece, sizeof piece, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || c->in.len > sizeof piece)
        close_conn(c);
    else if (n > 0) {
        bytes_add(&c->in, piece, (size_t)n);
        take(c);
    }
}

/* The loop. */

static void accept_all(void)
{
    int fd, yes = 1;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            die("out of memory");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        c->fd = fd;
        c->heap_at = -1;
        c->dialect = &DIALECTS[0];
        stats.open++;
        watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLRDHUP);
    }
}

/* A stream that could go on goes on, and a request that waited behind it is taken. */
static void go_on(struct conn *c)
{
    stream(c);
    take(c);
}

static void send_due(void)
{
    uint64_t ticks, now = now_ns();
    ssize_t ignored = read(timer_fd, &ticks, sizeof ticks);
    (void)ignored;
    armed = 0;
    while (heap.len && heap.at[0]->due <= now) {
        struct conn *c = heap.at[0];
        unschedule(c);
        go_on(c);
    }
}

static void serve(struct conn *c, uint32_t events)
{
    if (c->fd >= 0 && events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        receive(c);
    if (c->fd >= 0 && events & EPOLLOUT)
        flush(c);
    if (c->fd >= 0 && events & EPOLLOUT && c->heap_at < 0)
        go_on(c);
}

static void loop(void)
{
    struct epoll_event events[256];
    for (;;) {
        set_timer();
        int n = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < n; i++)
            if (events[i].data.ptr == &listen_fd)
                accept_all();
            else if (events[i].data.ptr == &timer_fd)
                send_due();
            else
                serve(events[i].data.ptr, events[i].events);
        free_dead();
    }
}

static void listen_on(int wanted)
{
    int yes = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wanted)};
    socklen_t len = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listen_fd, (struct sockaddr *)&a, sizeof a) || listen(listen_fd, 4096))
        die("listen");
    getsockname(listen_fd, (struct sockaddr *)&a, &len);
    port = ntohs(a.sin_port);
}

static void add_event(int *fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, *fd, &e))
        die("epoll_ctl");
}

int main(int argc, char **argv)
{
    int wanted = 0;
    for (int i = 1; i + 1 < argc; i += 2)
        if (!strcmp(argv[i], "--port"))
            wanted = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--jwks"))
            jwks = read_file(argv[i + 1]);
    allow_many_files();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    listen_on(wanted);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    add_event(&listen_fd);
    add_event(&timer_fd);
    printf("{\"port\": %d}\n", port);
    fflush(stdout);
    loop();
}
