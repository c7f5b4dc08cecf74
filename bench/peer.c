/* Both ends of the benchmark, on epoll, so that neither costs much beside the gateway between them.
 *
 *   peer serve                              an upstream on a free port of 127.0.0.1; prints the port
 *   peer requests PORT CONNECTIONS COUNT [KEY …]    that many whole answers over that many kept connections
 *   peer streams PORT STREAMS [KEY …]               one stream on each connection, all at once
 *
 * Each connection sends one of the keys, in turn.
 *
 * The upstream answers POST with about 650 bytes of JSON or, when the body asks for a stream, with 200 events, one every
 * 10 ms, as vLLM frames them; with a usage event when `include_usage` is asked for. The loads check each answer (status,
 * framing, number of events, how it ends) and print one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { FDS = 4096, ROOM = 65536, EVENTS = 200, EVERY_MS = 10, LIMIT_S = 120, TAIL = 32 };

static const char ANSWER[] =
    "{\"id\":\"chatcmpl-8f2c1d9a7b3e4c5d\",\"object\":\"chat.completion\",\"created\":1795334422,\"model\":\"bench\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A gateway stands between the programs of "
    "a house and the engines that answer them. It knows who may ask for what, which engine has which model, and what to "
    "say when one of them is not there. All it should cost is a little time on the way in and a little on the way out, "
    "and nobody should be able to tell from the answer that it was there.\",\"refusal\":null,\"reasoning\":null},"
    "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":42,"
    "\"total_tokens\":142,\"completion_tokens\":100}}";
static const char ANSWER_END[] = "\"completion_tokens\":100}}";
static const char MODELS[] = "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1795334422,"
                             "\"owned_by\":\"bench\"}]}";
static const char EVENT[] = "data: {\"id\":\"chatcmpl-8f2c1d9a7b3e4c5d\",\"object\":\"chat.completion.chunk\","
                            "\"created\":1795334422,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{%s},"
                            "\"logprobs\":null,\"finish_reason\":%s}]}\n\n";
static const char USAGE[] = "data: {\"id\":\"chatcmpl-8f2c1d9a7b3e4c5d\",\"object\":\"chat.completion.chunk\","
                            "\"created\":1795334422,\"model\":\"bench\",\"choices\":[],\"usage\":{\"prompt_tokens\":42,"
                            "\"total_tokens\":242,\"completion_tokens\":200}}\n\n";
static const char DONE[] = "data: [DONE]\n\n";
static const char ASK[] = "{\"model\":\"bench\",\"messages\":[{\"role\":\"system\",\"content\":\"You answer in one paragraph, "
                          "in plain words.\"},{\"role\":\"user\",\"content\":\"What is a gateway for, and what may it cost? "
                          "Please be brief and honest about it.\"}],\"temperature\":0.7,\"max_tokens\":256,\"stream\":%s}";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void tune(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void watch(int epoll, int fd, uint64_t tag) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

/* ---- upstream ---- */

struct served {
    int fd, timer, told; /* told: events written so far */
    bool usage;
    size_t size;
    char in[ROOM];
};

static struct served *by_fd[FDS];
static struct served *by_timer[FDS];

static void leave(struct served *peer) {
    if (peer->timer >= 0) {
        by_timer[peer->timer] = NULL;
        close(peer->timer);
    }
    by_fd[peer->fd] = NULL;
    close(peer->fd);
    free(peer);
}

/* False when it was not taken whole: nobody here reads that slowly, so the connection is given up. */
static bool put(struct served *peer, const char *data, size_t size) {
    return send(peer->fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool put_json(struct served *peer, const char *body) {
    char out[2048];
    int size = snprintf(out, sizeof out,
                        "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                        strlen(body), body);
    return put(peer, out, size);
}

static int framed(char *out, size_t room, const char *data) {
    return snprintf(out, room, "%zx\r\n%s\r\n", strlen(data), data);
}

static bool tell(struct served *peer) {
    char event[512], out[2048];
    const char *delta = peer->told == 0 ? "\"role\":\"assistant\",\"content\":\"\"" : "\"content\":\" words\"";
    bool last = ++peer->told == EVENTS;
    snprintf(event, sizeof event, EVENT, delta, last ? "\"stop\"" : "null");
    if (!put(peer, out, framed(out, sizeof out, event))) return false;
    if (!last) return true;
    by_timer[peer->timer] = NULL;
    close(peer->timer);
    peer->timer = -1;
    if (peer->usage && !put(peer, out, framed(out, sizeof out, USAGE))) return false;
    int size = framed(out, sizeof out, DONE);
    return put(peer, out, size + sprintf(out + size, "0\r\n\r\n"));
}

static bool begin(int epoll, struct served *peer) {
    static const char head[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    struct itimerspec every = {{0, EVERY_MS * 1000000}, {0, EVERY_MS * 1000000}};
    peer->told = 0;
    peer->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (peer->timer < 0 || peer->timer >= FDS) die("timerfd_create");
    by_timer[peer->timer] = peer;
    timerfd_settime(peer->timer, 0, &every, NULL);
    watch(epoll, peer->timer, (1ull << 32) | peer->timer);
    return put(peer, head, sizeof head - 1) && tell(peer);
}

/* Answers every whole request in the buffer; false when the connection is over. */
static bool serve(int epoll, struct served *peer) {
    char *end;
    while ((end = memmem(peer->in, peer->size, "\r\n\r\n", 4)) && peer->timer < 0) {
        *end = 0;
        const char *length = strcasestr(peer->in, "\ncontent-length:");
        size_t body = length ? strtoul(length + 16, NULL, 10) : 0, head = end + 4 - peer->in;
        *end = '\r';
        if (head + body >= ROOM) return false;
        if (peer->size < head + body) return true;
        bool stream = memmem(end, head + body - (end - peer->in), "\"stream\":true", 13) ||
                      memmem(end, head + body - (end - peer->in), "\"stream\": true", 14);
        peer->usage = memmem(end, head + body - (end - peer->in), "include_usage", 13);
        bool post = !memcmp(peer->in, "POST", 4);
        if (!(stream ? begin(epoll, peer) : put_json(peer, post ? ANSWER : MODELS))) return false;
        peer->size -= head + body;
        memmove(peer->in, peer->in + head + body, peer->size);
    }
    return true;
}

static void upstream(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 1024) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&at, &size);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    watch(epoll, listener, listener);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = (int)(uint32_t)events[i].data.u64;
            struct served *peer = events[i].data.u64 >> 32 ? by_timer[fd] : by_fd[fd];
            if (events[i].data.u64 >> 32) {
                uint64_t times;
                if (!peer || read(fd, &times, sizeof times) < 0) continue;
                for (bool open = true; open && times-- && peer->timer >= 0;)
                    if (!(open = tell(peer))) leave(peer), peer = NULL;
                if (peer && peer->timer < 0 && !serve(epoll, peer)) leave(peer);
            } else if (fd == listener) {
                int taken = accept(listener, NULL, NULL);
                if (taken < 0 || taken >= FDS) continue;
                tune(taken);
                peer = by_fd[taken] = calloc(1, sizeof *peer);
                peer->fd = taken;
                peer->timer = -1;
                watch(epoll, taken, taken);
            } else if (peer) {
                ssize_t got = recv(fd, peer->in + peer->size, ROOM - peer->size, 0);
                if (got < 0 && errno == EAGAIN) continue;
                if (got > 0) peer->size += got;
                if (got <= 0 || !serve(epoll, peer)) leave(peer);
            }
        }
    }
}

/* ---- load ---- */

enum step { HEAD, LENGTH, SIZE, DATA, DATA_END, LAST };

struct client {
    int fd, status, news, breaks; /* breaks: line breaks in a row; news: events seen */
    enum step step;
    size_t left, head_size;
    int64_t sent_ns, first_ns;
    const char *request;
    size_t request_size;
    char head[8192], tail[TAIL];
    bool bad;
};

static int64_t failures, answered, events_seen;

static void ask(struct client *client) {
    client->step = HEAD;
    client->head_size = client->left = client->news = client->breaks = client->first_ns = 0;
    client->bad = false;
    client->sent_ns = now_ns();
    if (send(client->fd, client->request, client->request_size, MSG_NOSIGNAL) != (ssize_t)client->request_size)
        client->bad = true;
}

static void body(struct client *client, const char *data, size_t size) {
    if (!client->first_ns) client->first_ns = now_ns();
    for (size_t i = 0; i < size; i++) {
        client->breaks = data[i] == '\n' ? client->breaks + 1 : 0;
        if (client->breaks == 2) client->news++;
    }
    size_t kept = size < TAIL ? TAIL - size : 0;
    memmove(client->tail, client->tail + TAIL - kept, kept);
    memcpy(client->tail + kept, data + size - (TAIL - kept), TAIL - kept);
}

static bool read_head(struct client *client) {
    char *head = client->head, *found;
    head[client->head_size] = 0;
    client->status = atoi(head + 9);
    if (strcasestr(head, "\nconnection: close")) client->bad = true;
    if ((found = strcasestr(head, "\ncontent-length:"))) {
        client->left = strtoul(found + 16, NULL, 10);
        client->step = LENGTH;
        return client->left == 0;
    }
    client->step = SIZE;
    if (!strcasestr(head, "chunked")) client->bad = true;
    return client->bad;
}

/* True when the answer is over, well or not. */
static bool take(struct client *client, const char *data, size_t size) {
    for (size_t at = 0; at < size;) {
        if (client->step == LENGTH || client->step == DATA) {
            size_t part = size - at < client->left ? size - at : client->left;
            body(client, data + at, part);
            at += part;
            client->left -= part;
            if (client->left == 0 && client->step == LENGTH) return true;
            if (client->left == 0) client->step = DATA_END;
            continue;
        }
        char byte = data[at++];
        if (client->step == HEAD || client->step == SIZE || client->step == LAST) {
            if (client->head_size == sizeof client->head - 1) return client->bad = true;
            client->head[client->head_size++] = byte;
        }
        if (byte != '\n') continue;
        if (client->step == HEAD && client->head_size > 4 && !memcmp(client->head + client->head_size - 4, "\r\n\r\n", 4)) {
            if (read_head(client)) return true;
            client->head_size = 0;
        } else if (client->step == SIZE) {
            client->left = strtoul(client->head, NULL, 16);
            client->head_size = 0;
            client->step = client->left ? DATA : LAST;
        } else if (client->step == DATA_END) {
            client->step = SIZE;
        } else if (client->step == LAST) {
            return true;
        }
    }
    return false;
}

static int by_size(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

static void settle(struct client *client, bool stream, int64_t *took) {
    const char *end = stream ? DONE : ANSWER_END;
    size_t size = strlen(end);
    bool right = !client->bad && client->status == 200 && !memcmp(client->tail + TAIL - size, end, size);
    if (stream && client->news != EVENTS + 1) right = false;
    failures += !right;
    events_seen += client->news;
    took[answered++] = (stream ? client->first_ns : now_ns()) - client->sent_ns;
}

static void prepare(struct client *client, int port, const char *body, const char *key) {
    char authorization[256] = "", *request;
    if (key) snprintf(authorization, sizeof authorization, "Authorization: Bearer %s\r\n", key);
    int size = asprintf(&request,
                        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: application/json\r\n"
                        "User-Agent: OpenAI/Python 2.0\r\n%sContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n%s",
                        port, authorization, strlen(body), body);
    if (size < 0) die("asprintf");
    client->request = request;
    client->request_size = size;
}

static int load(bool stream, int port, int connections, int64_t count, char **keys, int known) {
    struct sockaddr_in at = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    struct client *clients = calloc(connections, sizeof *clients);
    int64_t *took = calloc(count + connections, sizeof *took), asked = 0, started;
    char text[1024], in[ROOM];
    int epoll = epoll_create1(0), over = 0;
    snprintf(text, sizeof text, ASK, stream ? "true" : "false");
    alarm(LIMIT_S);
    for (int i = 0; i < connections; i++) {
        prepare(&clients[i], port, text, known ? keys[i % known] : NULL);
        clients[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(clients[i].fd, (struct sockaddr *)&at, sizeof at) < 0) die("connect");
        tune(clients[i].fd);
        watch(epoll, clients[i].fd, i);
    }
    started = now_ns();
    for (int i = 0; i < connections && asked < count; i++, asked++) {
        if (stream && i) usleep(EVERY_MS * 1000 / connections); /* streams do not beat in step */
        ask(&clients[i]);
    }
    while (answered < count && over < connections) {
        struct epoll_event ready[256];
        int found = epoll_wait(epoll, ready, 256, -1);
        for (int i = 0; i < found; i++) {
            struct client *client = &clients[ready[i].data.u64];
            ssize_t got = recv(client->fd, in, sizeof in, 0);
            if (got < 0 && errno == EAGAIN) continue;
            bool lost = got <= 0;
            if (!lost && !take(client, in, got)) continue;
            client->bad |= lost;
            settle(client, stream, took);
            if (client->bad) close(client->fd), over++;
            else if (asked < count) asked++, ask(client);
        }
    }
    double seconds = (now_ns() - started) / 1e9;
    qsort(took, answered, sizeof *took, by_size);
    printf("{\"answered\": %ld, \"failures\": %ld, \"events\": %ld, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (long)answered, (long)(failures + count - answered), (long)events_seen, seconds,
           answered ? took[answered / 2] / 1e3 : 0, answered ? took[answered * 99 / 100] / 1e3 : 0);
    return 0;
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    if (count == 2 && !strcmp(what, "serve")) upstream();
    if (count >= 5 && !strcmp(what, "requests"))
        return load(false, atoi(words[2]), atoi(words[3]), atol(words[4]), words + 5, count - 5);
    if (count >= 4 && !strcmp(what, "streams"))
        return load(true, atoi(words[2]), atoi(words[3]), atol(words[3]), words + 4, count - 4);
    fprintf(stderr, "peer serve | requests PORT CONNECTIONS COUNT [KEY …] | streams PORT STREAMS [KEY …]\n");
    return 2;
}
