// What a SPIFFE agent asks of Linux and Node has no call for: who is at the other end of a socket, whether that
// very process is still there, and how to tell systemd. Every function takes and returns plain numbers; those
// that fail throw an Error whose `code` is the errno name and whose message names the system call.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <node_api.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static napi_value fail(napi_env env, const char *call) {
  const int error = errno;
  const char *name = strerrorname_np(error);
  char message[128];
  snprintf(message, sizeof message, "%s: %s", call, strerror(error));
  napi_throw_error(env, name == NULL ? "EUNKNOWN" : name, message);
  return NULL;
}

// The arguments as 32-bit integers; false when one is missing or not a number, and then a TypeError is pending.
static bool integers(napi_env env, napi_callback_info info, size_t wanted, int32_t *out) {
  napi_value arguments[2];
  size_t count = 2;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  for (size_t i = 0; i < wanted; i++) {
    if (i >= count || napi_get_value_int32(env, arguments[i], &out[i]) != napi_ok) {
      napi_throw_type_error(env, NULL, "expected an integer");
      return false;
    }
  }
  return true;
}

static napi_value number(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

// peerCredentials(fd): [pid, uid, gid], as of connect(2). unix(7), SO_PEERCRED.
static napi_value peer_credentials(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!integers(env, info, 1, &fd)) return NULL;
  struct ucred credentials;
  socklen_t length = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return fail(env, "SO_PEERCRED");
  napi_value result;
  napi_create_array_with_length(env, 3, &result);
  napi_set_element(env, result, 0, number(env, credentials.pid));
  napi_set_element(env, result, 1, number(env, credentials.uid));
  napi_set_element(env, result, 2, number(env, credentials.gid));
  return result;
}

// peerPidfd(fd): a pidfd of the process that called connect(2). Linux 6.5.
static napi_value peer_pidfd(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!integers(env, info, 1, &fd)) return NULL;
  int pidfd = -1;
  socklen_t length = sizeof pidfd;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) < 0) return fail(env, "SO_PEERPIDFD");
  return number(env, pidfd);
}

// peerGroups(fd): the supplementary groups of the peer, as of connect(2). Linux 4.13, SO_PEERGROUPS.
static napi_value peer_groups(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!integers(env, info, 1, &fd)) return NULL;
  gid_t *groups = NULL;
  socklen_t length = 0;
  // Asked with no room, the kernel says how much it needs; what it holds never changes after connect(2).
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &length) < 0) {
    if (errno != ERANGE) return fail(env, "SO_PEERGROUPS");
    groups = malloc(length);
    if (groups == NULL || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0) {
      const int error = errno;
      free(groups);
      errno = error;
      return fail(env, "SO_PEERGROUPS");
    }
  }
  napi_value result;
  napi_create_array(env, &result);
  for (size_t i = 0; groups != NULL && i < length / sizeof *groups; i++)
    napi_set_element(env, result, i, number(env, groups[i]));
  free(groups);
  return result;
}

// pidfdOpen(pid): pidfd_open(2). Linux 5.3.
static napi_value pidfd_open_(napi_env env, napi_callback_info info) {
  int32_t pid;
  if (!integers(env, info, 1, &pid)) return NULL;
  const long pidfd = syscall(SYS_pidfd_open, pid, 0);
  if (pidfd < 0) return fail(env, "pidfd_open");
  return number(env, pidfd);
}

// pidfdAlive(pidfd): a pidfd is readable once its process has ended.
static napi_value pidfd_alive(napi_env env, napi_callback_info info) {
  int32_t pidfd;
  if (!integers(env, info, 1, &pidfd)) return NULL;
  struct pollfd entry = {.fd = pidfd, .events = POLLIN};
  int ready;
  do ready = poll(&entry, 1, 0);
  while (ready < 0 && errno == EINTR);
  if (ready < 0) return fail(env, "poll");
  if (ready > 0 && (entry.revents & POLLNVAL)) {
    errno = EBADF;
    return fail(env, "poll");
  }
  napi_value result;
  napi_get_boolean(env, ready == 0, &result);
  return result;
}

// sendDatagram(path, text): one datagram to a Unix socket; a leading @ stands for the abstract namespace.
static napi_value send_datagram(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2, path_length = 0, text_length = 0;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char text[4096];
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  if (count < 2 || napi_get_value_string_utf8(env, arguments[0], NULL, 0, &path_length) != napi_ok ||
      napi_get_value_string_utf8(env, arguments[1], NULL, 0, &text_length) != napi_ok) {
    napi_throw_type_error(env, NULL, "expected two strings");
    return NULL;
  }
  if (path_length == 0 || path_length >= sizeof address.sun_path || text_length >= sizeof text) {
    napi_throw_range_error(env, NULL, "the path or the text is too long");
    return NULL;
  }
  napi_get_value_string_utf8(env, arguments[0], address.sun_path, sizeof address.sun_path, NULL);
  napi_get_value_string_utf8(env, arguments[1], text, sizeof text, NULL);
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(env, "socket");
  const socklen_t length = offsetof(struct sockaddr_un, sun_path) + path_length;
  const ssize_t sent = sendto(fd, text, text_length, MSG_NOSIGNAL, (struct sockaddr *)&address, length);
  const int error = errno;
  close(fd);
  errno = error;
  return sent < 0 ? fail(env, "sendto") : NULL;
}

// forbidCoreDumps(): setrlimit(2), RLIMIT_CORE to zero, hard limit too.
static napi_value socket_pair(napi_env env, napi_callback_info info) {
  (void)info;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) return fail(env, "socketpair");
  napi_value result;
  napi_create_array_with_length(env, 2, &result);
  for (uint32_t i = 0; i < 2; i++) napi_set_element(env, result, i, number(env, ends[i]));
  return result;
}

static napi_value forbid_core_dumps(napi_env env, napi_callback_info info) {
  (void)info;
  const struct rlimit none = {0, 0};
  return setrlimit(RLIMIT_CORE, &none) < 0 ? fail(env, "setrlimit") : NULL;
}

struct watched {
  int fd, grace_ms;
};

// A thread, because where the process hangs nothing of JavaScript runs.
static void *kill_after_peer(void *argument) {
  const struct watched watched = *(struct watched *)argument;
  free(argument);
  struct pollfd entry = {.fd = watched.fd, .events = POLLRDHUP};
  while (poll(&entry, 1, -1) < 0 && errno == EINTR) {
  }
  const struct timespec grace = {watched.grace_ms / 1000, watched.grace_ms % 1000 * 1000000L};
  nanosleep(&grace, NULL);
  kill(getpid(), SIGKILL);
  return NULL;
}

// endWithPeer(fd, graceMs): SIGKILL to this process so long after the peer of the socket has closed it.
static napi_value end_with_peer(napi_env env, napi_callback_info info) {
  int32_t given[2];
  if (!integers(env, info, 2, given)) return NULL;
  struct watched *watched = malloc(sizeof *watched);
  if (watched == NULL) return fail(env, "malloc");
  // Its own descriptor: the caller's may be closed, and its number be another file's, while this waits.
  watched->fd = fcntl(given[0], F_DUPFD_CLOEXEC, 0);
  watched->grace_ms = given[1];
  if (watched->fd < 0) {
    free(watched);
    return fail(env, "fcntl");
  }
  // The signals of the process are for the threads of Node.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, NULL, kill_after_peer, watched);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error != 0) {
    close(watched->fd);
    free(watched);
    errno = error;
    return fail(env, "pthread_create");
  }
  pthread_detach(thread);
  return NULL;
}

// A view of the bytes of a Uint8Array; false when it is none, and then a TypeError is pending.
static bool bytes(napi_env env, napi_value value, void **data, size_t *length) {
  napi_typedarray_type type;
  bool is_array = false;
  if (napi_is_typedarray(env, value, &is_array) == napi_ok && is_array &&
      napi_get_typedarray_info(env, value, &type, length, data, NULL, NULL) == napi_ok && type == napi_uint8_array) {
    return true;
  }
  napi_throw_type_error(env, NULL, "expected a Uint8Array");
  return false;
}

// The little of pkcs11.h that a login needs: PKCS#11 v2.40.
typedef unsigned long ck_ulong;
enum { CKU_USER = 1, C_LOGIN = 18 };
struct ck_function_list {
  struct { unsigned char major, minor; } version;
  ck_ulong (*function[C_LOGIN + 1])();
};

// pkcs11Login(module, session, pin): C_Login in the module that is loaded from that path already, with the bytes of
// the caller and no copy of them. Returns CKR_….
static napi_value pkcs11_login(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t count = 3, path_length = 0, session_length = 0, pin_length = 0;
  void *session_bytes = NULL, *pin = NULL;
  char path[4096];
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  if (count < 3 || napi_get_value_string_utf8(env, arguments[0], path, sizeof path, &path_length) != napi_ok) {
    napi_throw_type_error(env, NULL, "expected a path, a session and a PIN");
    return NULL;
  }
  if (!bytes(env, arguments[1], &session_bytes, &session_length) || !bytes(env, arguments[2], &pin, &pin_length)) {
    return NULL;
  }
  ck_ulong session;
  if (session_length != sizeof session) {
    napi_throw_range_error(env, NULL, "a session has as many bytes as a CK_ULONG");
    return NULL;
  }
  memcpy(&session, session_bytes, sizeof session);
  void *module = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  ck_ulong (*get_function_list)(struct ck_function_list **) = NULL;
  if (module != NULL) *(void **)&get_function_list = dlsym(module, "C_GetFunctionList");
  struct ck_function_list *list = NULL;
  if (get_function_list == NULL || get_function_list(&list) != 0 || list == NULL) {
    if (module != NULL) dlclose(module);
    napi_throw_error(env, NULL, "no PKCS#11 module is loaded from that path");
    return NULL;
  }
  const ck_ulong result = list->function[C_LOGIN](session, (ck_ulong)CKU_USER, pin, (ck_ulong)pin_length);
  dlclose(module);
  return number(env, result);
}

static napi_value init(napi_env env, napi_value exports) {
  const struct {
    const char *name;
    napi_callback call;
  } functions[] = {
      {"peerCredentials", peer_credentials}, {"peerPidfd", peer_pidfd},
      {"peerGroups", peer_groups},           {"pidfdOpen", pidfd_open_},
      {"pidfdAlive", pidfd_alive},           {"sendDatagram", send_datagram},
      {"forbidCoreDumps", forbid_core_dumps}, {"pkcs11Login", pkcs11_login},
      {"endWithPeer", end_with_peer},        {"socketPair", socket_pair},
  };
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL, &function);
    napi_set_named_property(env, exports, functions[i].name, function);
  }
  return exports;
}

NAPI_MODULE(NODE_GYP_MODULE_NAME, init)
