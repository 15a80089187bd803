/*
 * A PKCS#11 module that forwards to a real one and misbehaves on request: an HSM's faults without an HSM.
 *
 *   PKCS11_SHIM_MODULE   path of the real module
 *   PKCS11_SHIM_CONTROL  path of the control file, read again at every call; missing or empty means no faults
 *   PKCS11_SHIM_CALLS    path of a file to which the name of every watched call is appended, one a line
 *
 * The control file has one line: FUNCTION ACTION [ARGUMENT [EVERY]], such as "C_Sign error 0x32" or
 * "C_Sign flip 0 100".
 *   error CODE   return CODE without calling the module
 *   delay MS     wait, then call the module
 *   hang         never return
 *   stall        wait until the control file says something else, then call the module
 *   linger       call the module, then wait until the control file says something else
 *   abort        end the process as a crash does
 *   flip BIT     call the module, then flip that bit of the signature (C_Sign only)
 *   flags MASK   call the module, then set these flags of the token (C_GetTokenInfo only)
 * With EVERY, only each EVERYth call of that function is hit.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The little of pkcs11.h that forwarding needs; values and order are those of PKCS#11 v2.40. */
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef unsigned char CK_BYTE;
typedef struct { CK_BYTE major, minor; } CK_VERSION;
typedef CK_RV (*CK_FUNCTION)();
#define FUNCTIONS 68
typedef struct { CK_VERSION version; CK_FUNCTION function[FUNCTIONS]; } CK_FUNCTION_LIST;
/* CK_TOKEN_INFO: label, manufacturerID, model, serialNumber stand before flags. */
#define TOKEN_FLAGS_OFFSET (32 + 32 + 16 + 16)
#define CKR_GENERAL_ERROR 5UL

enum {
  C_INITIALIZE = 0, C_GET_SLOT_LIST = 4, C_GET_TOKEN_INFO = 6, C_OPEN_SESSION = 12, C_GET_SESSION_INFO = 15,
  C_LOGIN = 18,
  C_COPY_OBJECT = 21, C_SIGN_INIT = 42, C_SIGN = 43, C_GENERATE_KEY_PAIR = 59,
};

static CK_FUNCTION_LIST real, shim;

typedef struct { int hit; char action[16]; CK_ULONG argument; } Fault;

static void note(const char *name) {
  const char *path = getenv("PKCS11_SHIM_CALLS");
  if (!path) return;
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0) return;
  char line[64];
  int length = snprintf(line, sizeof line, "%s\n", name);
  if (write(file, line, length) < 0) abort();
  close(file);
}

/* Returns once the control file does not ask for that action any more. */
static void wait_while(const char *action) {
  const char *path = getenv("PKCS11_SHIM_CONTROL");
  const struct timespec wait = {0, 5000000};
  for (char now[32] = "";; *now = 0) {
    FILE *control = fopen(path, "re");
    if (control) {
      if (fscanf(control, "%*s %31s", now) < 1) *now = 0;
      fclose(control);
    }
    if (strcmp(now, action)) return;
    nanosleep(&wait, NULL);
  }
}

/* What to do to this call. Everything but `flip`, `flags` and `linger` is over when this returns. */
static Fault consult(const char *name) {
  static _Atomic unsigned long calls;
  Fault fault = {0};
  note(name);
  const char *path = getenv("PKCS11_SHIM_CONTROL");
  FILE *control = path ? fopen(path, "re") : NULL;
  if (!control) return fault;
  char function[32] = "", argument[32] = "0";
  unsigned long every = 1;
  int fields = fscanf(control, "%31s %15s %31s %lu", function, fault.action, argument, &every);
  fclose(control);
  if (fields < 2 || strcmp(function, name) != 0 || ++calls % every != 0) return fault;
  fault.hit = 1;
  fault.argument = strtoul(argument, NULL, 0);
  if (!strcmp(fault.action, "abort")) abort();
  if (!strcmp(fault.action, "hang")) for (;;) pause();
  if (!strcmp(fault.action, "stall")) wait_while("stall");
  if (!strcmp(fault.action, "delay")) {
    struct timespec wait = {fault.argument / 1000, fault.argument % 1000 * 1000000};
    nanosleep(&wait, NULL);
  }
  return fault;
}

static int is(Fault fault, const char *action) { return fault.hit && !strcmp(fault.action, action); }

/* Six words are enough for any of these; the calling convention lets a callee ignore the rest. */
typedef CK_ULONG W;
#define FORWARD(name, index)                                                            \
  static CK_RV name(W a, W b, W c, W d, W e, W f, W g, W h) {                           \
    Fault fault = consult(#name);                                                       \
    if (is(fault, "error")) return fault.argument;                                      \
    CK_RV result = real.function[index](a, b, c, d, e, f, g, h);                        \
    if (is(fault, "linger")) wait_while("linger");                                      \
    return result;                                                                      \
  }

FORWARD(C_Initialize, C_INITIALIZE)
FORWARD(C_GetSlotList, C_GET_SLOT_LIST)
FORWARD(C_OpenSession, C_OPEN_SESSION)
FORWARD(C_GetSessionInfo, C_GET_SESSION_INFO)
FORWARD(C_Login, C_LOGIN)
FORWARD(C_CopyObject, C_COPY_OBJECT)
FORWARD(C_SignInit, C_SIGN_INIT)
FORWARD(C_GenerateKeyPair, C_GENERATE_KEY_PAIR)

static CK_RV C_GetTokenInfo(W slot, CK_BYTE *info) {
  Fault fault = consult("C_GetTokenInfo");
  if (is(fault, "error")) return fault.argument;
  CK_RV result = real.function[C_GET_TOKEN_INFO](slot, info);
  if (result == 0 && is(fault, "flags")) {
    CK_ULONG flags;
    memcpy(&flags, info + TOKEN_FLAGS_OFFSET, sizeof flags);
    flags |= fault.argument;
    memcpy(info + TOKEN_FLAGS_OFFSET, &flags, sizeof flags);
  }
  return result;
}

static CK_RV C_Sign(W session, CK_BYTE *data, W length, CK_BYTE *signature, CK_ULONG *signatureLength) {
  Fault fault = consult("C_Sign");
  if (is(fault, "error")) return fault.argument;
  CK_RV result = real.function[C_SIGN](session, data, length, signature, signatureLength);
  if (result == 0 && signature && is(fault, "flip")) {
    CK_ULONG bit = fault.argument % (*signatureLength * 8);
    signature[bit / 8] ^= (CK_BYTE)(1 << (bit % 8));
  }
  return result;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list) {
  const char *path = getenv("PKCS11_SHIM_MODULE");
  void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  CK_RV (*getList)(CK_FUNCTION_LIST **) = NULL;
  if (module) *(void **)&getList = dlsym(module, "C_GetFunctionList");
  CK_FUNCTION_LIST *found = NULL;
  if (!getList || getList(&found) != 0) return CKR_GENERAL_ERROR;
  real = shim = *found;
  shim.function[C_INITIALIZE] = (CK_FUNCTION)C_Initialize;
  shim.function[C_GET_SLOT_LIST] = (CK_FUNCTION)C_GetSlotList;
  shim.function[C_GET_TOKEN_INFO] = (CK_FUNCTION)C_GetTokenInfo;
  shim.function[C_OPEN_SESSION] = (CK_FUNCTION)C_OpenSession;
  shim.function[C_GET_SESSION_INFO] = (CK_FUNCTION)C_GetSessionInfo;
  shim.function[C_LOGIN] = (CK_FUNCTION)C_Login;
  shim.function[C_COPY_OBJECT] = (CK_FUNCTION)C_CopyObject;
  shim.function[C_SIGN_INIT] = (CK_FUNCTION)C_SignInit;
  shim.function[C_SIGN] = (CK_FUNCTION)C_Sign;
  shim.function[C_GENERATE_KEY_PAIR] = (CK_FUNCTION)C_GenerateKeyPair;
  *list = &shim;
  return 0;
}
