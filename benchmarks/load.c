/* The load generator: many HTTP/1.1 requests on plain sockets, one thread, epoll. What it measures, it prints as one JSON
 * object.
 *
 *   load -p PORT -f TEMPLATE -n REQUESTS [-c AT_ONCE] [-r RAMP_MS] [-t SECONDS] [-k TOKENS] [-s FROM] [-e TO] [-w] [-l]
 *
 * TEMPLATE is a file with a whole request; "000000" in it becomes the number of the request, six digits. A request is over
 * at end of file (send "Connection: close"), after TOKENS tokens, or after SECONDS. A token is "@" and a CLOCK_MONOTONIC time, 16 characters
 * ("%016.5f"); its latency is the time of the read that brought it minus that time. -c keeps so many open at once (all by
 * default), -r spreads the first ones over a time, -l adds the time of the last token of every request.
 * -s, -e: latencies are those of tokens that come between these seconds; "steady" is how many did.
 * -w: connect all, then send all requests at one moment (a herd). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STAMP = 16, CARRY = 32, ROOM = 1 << 18 };

struct request {
  int fd, sent, carried, bad;
  double begun, first, ended, last;
  long tokens;
  char carry[CARRY];
};

struct sample {
  float *values;
  size_t used, room;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void add(struct sample *s, double value) {
  if (s->used == s->room) {
    s->room = s->room ? s->room * 2 : 1 << 16;
    s->values = realloc(s->values, s->room * sizeof *s->values);
    if (!s->values) exit(3);
  }
  s->values[s->used++] = (float)value;
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void print(const char *name, struct sample *s) {
  qsort(s->values, s->used, sizeof *s->values, by_value);
  printf("\"%s\":{\"n\":%zu", name, s->used);
  if (s->used) {
    double sum = 0;
    for (size_t i = 0; i < s->used; i++) sum += s->values[i];
    printf(",\"mean\":%.3f,\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f", sum / (double)s->used * 1e3,
           s->values[s->used / 2] * 1e3, s->values[(size_t)((double)(s->used - 1) * 0.99)] * 1e3,
           s->values[s->used - 1] * 1e3);
  }
  printf("}");
}

static char *template;
static size_t template_size;
static struct sample latency, first_byte, whole;
static int poll_fd, port, lasts;
static long bytes, enough, steady;
static double from, to;

static void die(const char *what) {
  perror(what);
  exit(2);
}

static void watch(struct request *r, int number, uint32_t events, int op) {
  struct epoll_event event = {.events = events, .data.u32 = (uint32_t)number};
  if (epoll_ctl(poll_fd, op, r->fd, &event) < 0) die("epoll_ctl");
}

static void open_request(struct request *r, int number, int hold) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  memset(r, 0, sizeof *r);
  r->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (r->fd < 0) die("socket");
  int on = 1;
  setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  r->begun = now();
  if (connect(r->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) die("connect");
  watch(r, number, hold ? EPOLLIN : EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_request(struct request *r, int number) {
  char *copy = strdup(template), digits[16];
  snprintf(digits, sizeof digits, "%06d", number);
  for (char *at = copy; (at = strstr(at, "000000")); at += 6) memcpy(at, digits, 6);
  ssize_t n = send(r->fd, copy, template_size, MSG_NOSIGNAL);
  free(copy);
  if (n != (ssize_t)template_size) {
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) return;
    r->bad = 1;
  }
  r->sent = 1;
  watch(r, number, EPOLLIN, EPOLL_CTL_MOD);
}

static void stamps(struct request *r, char *data, size_t size, double at) {
  char *end = data + size, *p = data;
  while ((p = memchr(p, '@', (size_t)(end - p)))) {
    if (end - p <= STAMP) break;
    p[STAMP] = p[STAMP] ? p[STAMP] : ' ';
    double made = strtod(p + 1, NULL);
    if (made > 0) {
      if (at >= from && at <= to) {
        add(&latency, at - made);
        steady++;
      }
      r->last = at;
      r->tokens++;
    }
    p += STAMP;
  }
  size_t keep = p ? (size_t)(end - p) : 0;
  r->carried = (int)keep;
  if (keep) memcpy(r->carry, p, keep);
}

static int read_request(struct request *r) {
  static char room[CARRY + ROOM + 1];
  for (;;) {
    memcpy(room, r->carry, (size_t)r->carried);
    ssize_t n = recv(r->fd, room + r->carried, ROOM, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    double at = now();
    if (n <= 0) {
      if (n < 0) r->bad = 1;
      r->ended = at;
      return 1;
    }
    bytes += n;
    if (!r->first) {
      r->first = at;
      add(&first_byte, at - r->begun);
      if (!strstr((room[n + r->carried] = 0, room), " 20")) r->bad = 1;
    }
    stamps(r, room, (size_t)n + (size_t)r->carried, at);
    if (enough && r->tokens >= enough) {
      r->ended = at;
      return 1;
    }
  }
}

int main(int argc, char **argv) {
  int total = 1, at_once = 0, herd = 0, option;
  double ramp = 0, limit = 30, first_second = 0, last_second = 1e9;
  const char *path = NULL;
  while ((option = getopt(argc, argv, "p:f:n:c:r:t:k:s:e:wl")) != -1) {
    if (option == 'p') port = atoi(optarg);
    else if (option == 'f') path = optarg;
    else if (option == 'n') total = atoi(optarg);
    else if (option == 'c') at_once = atoi(optarg);
    else if (option == 'r') ramp = atof(optarg) / 1e3;
    else if (option == 't') limit = atof(optarg);
    else if (option == 'k') enough = atol(optarg);
    else if (option == 's') first_second = atof(optarg);
    else if (option == 'e') last_second = atof(optarg);
    else if (option == 'w') herd = 1;
    else if (option == 'l') lasts = 1;
    else return 2;
  }
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) die("template");
  template = calloc(1, 1 << 20);
  template_size = fread(template, 1, (1 << 20) - 1, file);
  if (!at_once || at_once > total) at_once = total;
  struct request *all = calloc((size_t)total, sizeof *all);
  struct epoll_event ready[512];
  poll_fd = epoll_create1(0);
  double begun = now();
  from = begun + first_second;
  to = begun + last_second;
  int opened = 0, over = 0, bad = 0, released = !herd;
  while (over < total && now() - begun < limit) {
    while (opened < total && opened - over < at_once &&
           (ramp == 0 || opened >= at_once || now() - begun >= ramp * opened / at_once)) {
      open_request(&all[opened], opened, herd && !released);
      opened++;
    }
    if (herd && !released && opened == at_once) {
      usleep(200000); /* every connection is accepted by then */
      for (int i = 0; i < opened; i++) {
        all[i].begun = now();
        send_request(&all[i], i);
      }
      released = 1;
    }
    int n = epoll_wait(poll_fd, ready, 512, ramp ? 1 : 20);
    for (int i = 0; i < n; i++) {
      int number = (int)ready[i].data.u32;
      struct request *r = &all[number];
      if (!r->sent && (ready[i].events & EPOLLOUT)) send_request(r, number);
      if ((ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && read_request(r)) {
        add(&whole, r->ended - r->begun);
        bad += r->bad;
        close(r->fd);
        over++;
      }
    }
  }
  double wall = now() - begun;
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  long tokens = 0;
  for (int i = 0; i < total; i++) tokens += all[i].tokens;
  printf("{\"requests\":%d,\"over\":%d,\"bad\":%d,\"tokens\":%ld,\"steady\":%ld,\"bytes\":%ld,\"wall\":%.4f,\"cpu\":%.4f,", total, over, bad,
         tokens, steady, bytes, wall,
         (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
             (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
  print("latency", &latency);
  printf(",");
  print("first_byte", &first_byte);
  printf(",");
  print("whole", &whole);
  if (lasts) {
    printf(",\"last\":[");
    for (int i = 0; i < total; i++) printf("%s%.5f", i ? "," : "", all[i].last);
    printf("]");
  }
  printf("}\n");
  return 0;
}
