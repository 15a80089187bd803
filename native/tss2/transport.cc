// The bytes of TPM commands and responses, through tpm2-tss's TCTI loader; all that is known about TPM 2.0 is
// in TypeScript (src/tpm). Each command has a thread of its own and not one of libuv's pool: a TPM that never
// answers would keep that for ever, and process.exit() waits for the pool.
#include <fcntl.h>
#include <napi.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Bytes = std::vector<uint8_t>;
using Answer = std::function<Napi::Value(Napi::Env)>;  // runs on the JavaScript thread

struct Connection {
  TSS2_TCTI_CONTEXT* tcti = nullptr;
  ~Connection() { Tss2_TctiLdr_Finalize(&tcti); }
};

struct Failure {
  TSS2_RC rc;
  const char* call;
};

void Check(const char* call, TSS2_RC rc) {
  if (rc != TSS2_RC_SUCCESS) throw Failure{rc, call};
}

struct Settlement {
  Napi::Promise::Deferred deferred;
  Answer answer;
  Failure failure{};
};

void Settle(Napi::Env env, Napi::Function, std::nullptr_t*, Settlement* done) {
  std::unique_ptr<Settlement> owned(done);
  if (env == nullptr) return;  // the environment is going away
  if (done->answer) return done->deferred.Resolve(done->answer(env));
  Napi::Error error = Napi::Error::New(env, done->failure.call);
  error.Set("rc", Napi::Number::New(env, done->failure.rc));
  done->deferred.Reject(error.Value());
}

Napi::Promise OffThread(Napi::Env env, std::function<Answer()> work) {
  using Ready = Napi::TypedThreadSafeFunction<std::nullptr_t, Settlement, Settle>;
  auto done = std::make_unique<Settlement>(Napi::Promise::Deferred(env));
  Napi::Promise promise = done->deferred.Promise();
  Ready ready = Ready::New(env, "assay_tpm", 0, 1);
  try {
    std::thread([ready, done = std::move(done), work = std::move(work)]() mutable {
      try {
        done->answer = work();
      } catch (const Failure& failure) {
        done->failure = failure;
      }
      work = nullptr;  // a closed connection ends here, before JavaScript hears of it
      if (ready.BlockingCall(done.get()) != napi_ok) return;  // the environment took `ready` with it
      (void)done.release();
      ready.Release();
    }).detach();
  } catch (const std::system_error& error) {
    ready.Release();
    throw Napi::Error::New(env, error.what());
  }
  return promise;
}

Answer Transmit(const Connection& connection, const Bytes& command, int32_t timeoutMs) {
  Check("Tss2_Tcti_Transmit", Tss2_Tcti_Transmit(connection.tcti, command.size(), command.data()));
  Bytes response(TPM2_MAX_RESPONSE_SIZE);
  size_t size = response.size();
  Check("Tss2_Tcti_Receive", Tss2_Tcti_Receive(connection.tcti, &size, response.data(), timeoutMs));
  response.resize(size);
  return [response = std::move(response)](Napi::Env env) -> Napi::Value {
    Napi::Uint8Array copy = Napi::Uint8Array::New(env, response.size());
    std::copy(response.begin(), response.end(), copy.Data());
    return copy;
  };
}

// The connection as JavaScript holds it. A command under way keeps the connection open after close().
Napi::Value Wrap(Napi::Env env, std::shared_ptr<Connection> connection) {
  auto held = std::make_shared<std::shared_ptr<Connection>>(std::move(connection));
  auto transmit = [held](const Napi::CallbackInfo& info) -> Napi::Value {
    if (!*held) throw Napi::Error::New(info.Env(), "the TPM connection is closed");
    auto bytes = info[0].As<Napi::Uint8Array>();
    Bytes command(bytes.Data(), bytes.Data() + bytes.ByteLength());
    int32_t timeoutMs = info[1].As<Napi::Number>().Int32Value();
    return OffThread(info.Env(), [connection = *held, command = std::move(command), timeoutMs] {
      return Transmit(*connection, command, timeoutMs);
    });
  };
  Napi::Object object = Napi::Object::New(env);
  object.Set("transmit", Napi::Function::New(env, transmit));
  object.Set("close", Napi::Function::New(env, [held](const Napi::CallbackInfo&) { held->reset(); }));
  return object;
}

// open(tcti): Promise<{ transmit(command, timeoutMs): Promise<Uint8Array>, close(): void }>
Napi::Value Open(const Napi::CallbackInfo& info) {
  std::string name = info[0].As<Napi::String>();
  return OffThread(info.Env(), [name = std::move(name)]() -> Answer {
    auto connection = std::make_shared<Connection>();
    Check("Tss2_TctiLdr_Initialize", Tss2_TctiLdr_Initialize(name.c_str(), &connection->tcti));
    // tpm2-tss opens a device without O_CLOEXEC: a child process would hold the TPM.
    TSS2_TCTI_POLL_HANDLE handle{};
    size_t count = 1;
    if (Tss2_Tcti_GetPollHandles(connection->tcti, &handle, &count) == TSS2_RC_SUCCESS && count == 1)
      fcntl(handle.fd, F_SETFD, FD_CLOEXEC);
    return [connection](Napi::Env env) { return Wrap(env, connection); };
  });
}

// describe(rc): string
Napi::Value Describe(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), Tss2_RC_Decode(info[0].As<Napi::Number>().Uint32Value()));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("open", Napi::Function::New<Open>(env, "open"));
  exports.Set("describe", Napi::Function::New<Describe>(env, "describe"));
  return exports;
}

}  // namespace

NODE_API_MODULE(assay_tpm, Init)
