/* The server that the clients are measured against: HTTP/1.1, kept connections, one thread, always the same answer.

   server DELAY...   listens on one loopback port for each delay in milliseconds, and prints the ports as one line. A line on
   standard input is answered with the number of calls so far and the bytes of their bodies; its end ends the server.

   For a moment after each event it looks for the next one without sleeping. A processor that sleeps between two calls is woken
   by the client's send, which then costs some 25 us more: those would be charged to whoever takes longer between two calls. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST_FILES = 16384, MOST_LISTENERS = 8, HEAD = 16384, QUEUE = 65536 };
static const uint64_t AWAKE = 5000000; /* nanoseconds */
enum kind { NOTHING, INPUT, LISTENER, TIMER, CONNECTION };

static const char BODY[] = "{\"eventId\":\"01J00000000000000000000000\",\"eventTimestamp\":\"1764000000000\"}";
static char answer[512];
static size_t answer_length;

struct due {
    uint64_t at; /* nanoseconds of CLOCK_MONOTONIC */
    int file;
    uint32_t opened; /* which connection of that number */
};

/* All answers of a listener wait equally long, so the first in is the first out. */
static struct listener {
    uint64_t delay;
    int timer;
    unsigned first, last;
    struct due queue[QUEUE];
} listeners[MOST_LISTENERS];

struct connection {
    struct listener *listener;
    uint32_t opened;
    int waiting; /* for its answer */
    uint64_t body_left;
    size_t used;
    char head[HEAD];
};

static enum kind kinds[MOST_FILES];
static struct listener *listener_of[MOST_FILES];
static struct connection *connections[MOST_FILES];
static char scratch[1 << 18];
static int poller;
static uint64_t calls, bytes;
static uint32_t opened;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void watch(int file, enum kind kind) {
    if (file < 0 || file >= MOST_FILES) fail("too many connections");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = file};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, file, &event) < 0) fail("epoll_ctl");
    kinds[file] = kind;
}

static void drop(int file) {
    kinds[file] = NOTHING;
    free(connections[file]);
    connections[file] = NULL;
    close(file);
}

static void set_timer(struct listener *listener) {
    uint64_t at = listener->queue[listener->first % QUEUE].at;
    struct itimerspec when = {.it_value = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)}};
    if (timerfd_settime(listener->timer, TFD_TIMER_ABSTIME, &when, NULL) < 0) fail("timerfd_settime");
}

static int send_answer(int file) {
    return send(file, answer, answer_length, MSG_NOSIGNAL) == (ssize_t)answer_length;
}

/* Answers a whole request, now or later. Returns 0 when the connection is lost. */
static int whole(int file, struct connection *connection) {
    struct listener *listener = connection->listener;
    calls++;
    if (!listener->delay) return send_answer(file);
    if (listener->last - listener->first == QUEUE) fail("too many answers wait");
    listener->queue[listener->last % QUEUE] = (struct due){now() + listener->delay, file, connection->opened};
    connection->waiting = 1;
    if (listener->last++ == listener->first) set_timer(listener);
    return 1;
}

/* The length that the head states; -1 without one, and for a body in chunks, which no contender sends. */
static int64_t content_length(const char *head, const char *end) {
    for (const char *line = head; line < end; line = (const char *)memmem(line, (size_t)(end + 2 - line), "\r\n", 2) + 2)
        if (!strncasecmp(line, "content-length:", 15)) return strtoll(line + 15, NULL, 10);
    return -1;
}

/* Reads what has been buffered. Returns 0 when the connection has to be dropped. */
static int parse(int file, struct connection *connection) {
    while (connection->used && !connection->waiting) {
        char *end = memmem(connection->head, connection->used, "\r\n\r\n", 4);
        if (!end) return connection->used < HEAD;
        int64_t length = content_length(connection->head, end);
        if (length < 0) {
            static const char refused[] = "HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            send(file, refused, sizeof refused - 1, MSG_NOSIGNAL);
            return 0;
        }
        size_t rest = connection->used - (size_t)(end + 4 - connection->head);
        size_t here = rest < (uint64_t)length ? rest : (size_t)length;
        memmove(connection->head, end + 4 + here, rest - here);
        connection->used = rest - here;
        connection->body_left = (uint64_t)length - here;
        bytes += (uint64_t)length;
        if (connection->body_left) return 1;
        if (!whole(file, connection)) return 0;
    }
    return 1;
}

static int receive(int file, struct connection *connection) {
    if (connection->body_left) {
        size_t most = connection->body_left < sizeof scratch ? connection->body_left : sizeof scratch;
        ssize_t got = recv(file, scratch, most, MSG_DONTWAIT);
        if (got <= 0) return got < 0 && errno == EAGAIN;
        connection->body_left -= (uint64_t)got;
        return connection->body_left || whole(file, connection);
    }
    if (connection->used == HEAD) return 0;
    ssize_t got = recv(file, connection->head + connection->used, HEAD - connection->used, MSG_DONTWAIT);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    connection->used += (size_t)got;
    return parse(file, connection);
}

static void expire(struct listener *listener) {
    uint64_t ticks, time = now();
    if (read(listener->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) fail("timer");
    while (listener->first != listener->last && listener->queue[listener->first % QUEUE].at <= time) {
        struct due *due = &listener->queue[listener->first++ % QUEUE];
        struct connection *connection = connections[due->file];
        if (!connection || connection->opened != due->opened) continue;
        connection->waiting = 0;
        if (!send_answer(due->file) || !parse(due->file, connection)) drop(due->file);
    }
    if (listener->first != listener->last) set_timer(listener);
}

static void accept_one(int file) {
    int accepted = accept4(file, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    if (accepted < 0) return;
    setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(accepted, CONNECTION);
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) fail("calloc");
    connection->listener = listener_of[file];
    connection->opened = ++opened;
    connections[accepted] = connection;
}

static int listen_for(struct listener *listener) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int file = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (file < 0 || bind(file, (struct sockaddr *)&address, length) < 0 || listen(file, 4096) < 0) fail("listen");
    if (getsockname(file, (struct sockaddr *)&address, &length) < 0) fail("getsockname");
    watch(file, LISTENER);
    listener_of[file] = listener;
    listener->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(listener->timer, TIMER);
    listener_of[listener->timer] = listener;
    return ntohs(address.sin_port);
}

int main(int count, char **arguments) {
    struct rlimit files;
    if (count < 2 || count - 1 > MOST_LISTENERS) return fputs("usage: server DELAY...\n", stderr), 2;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max < MOST_FILES ? files.rlim_max : MOST_FILES;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    answer_length = (size_t)snprintf(
        answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        sizeof BODY - 1, BODY);
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll_create1");
    watch(STDIN_FILENO, INPUT);
    for (int i = 1; i < count; i++) {
        listeners[i - 1].delay = (uint64_t)(strtod(arguments[i], NULL) * 1e6);
        printf(i < count - 1 ? "%d " : "%d\n", listen_for(&listeners[i - 1]));
    }
    fflush(stdout);
    for (uint64_t last = now();;) {
        struct epoll_event events[256];
        int got = epoll_wait(poller, events, 256, now() - last < AWAKE ? 0 : -1);
        if (got > 0) last = now();
        for (int i = 0; i < got; i++) {
            int file = events[i].data.fd;
            if (kinds[file] == CONNECTION) {
                if (!receive(file, connections[file])) drop(file);
            } else if (kinds[file] == LISTENER) {
                accept_one(file);
            } else if (kinds[file] == TIMER) {
                expire(listener_of[file]);
            } else if (kinds[file] == INPUT) {
                if (read(STDIN_FILENO, scratch, sizeof scratch) <= 0) return 0;
                printf("%llu %llu\n", (unsigned long long)calls, (unsigned long long)bytes);
                fflush(stdout);
            }
        }
    }
}
