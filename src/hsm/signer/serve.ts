import { Socket } from 'node:net'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { forbidCoreDumps } from '#host/core-dumps.ts'
import { endWithPeer } from '#host/end-with-peer.ts'
import { type Frame, FrameReader, FrameWriter } from '../frame.ts'
import { type PermitToken, Signer } from './signer.ts'

/** SD_LISTEN_FDS_START, and where a server puts its end of the pair. */
const serverFd = 3

const finalizeLimit = Temporal.Duration.from({ seconds: 1 })
/**
 * What a server may have asked for that is not answered yet. Ours has 1024 requests of a few KiB at most; one that has
 * more, or leaves its answers unread, is not read until it has fewer, so that it cannot fill the memory here.
 */
const maxUnanswered = { requests: 2048, bytes: 4 << 20 }

/** Longer than an end in order takes. */
const hangLimitMs = 2000

/**
 * Serves the one server at descriptor 3, and ends the process when that goes, whatever the module is doing then.
 *
 * Built to plain JavaScript it runs with `--jitless`, and so under `MemoryDenyWriteExecute=`.
 */
export function serveSigner(permit: PermitToken): void {
  forbidCoreDumps()
  endWithPeer(serverFd, hangLimitMs)
  const clock = new SystemClock()
  const stop = new AbortController()
  const server = new Socket({ fd: serverFd, readable: true, writable: true })
  const reader = new FrameReader()
  const unanswered = { requests: 0, bytes: 0 }
  const writer = new FrameWriter((bytes) => {
    server.write(bytes)
    readOrRest()
  })
  const signer = new Signer({
    clock,
    random: new SystemRandom(),
    signal: stop.signal,
    send: (kind, id, body) => writer.send(kind, id, body),
    permit,
    onEnd: () => queueMicrotask(() => server.end()),
  })

  function readOrRest(): void {
    const { requests, bytes } = unanswered
    const isTooMuch = requests > maxUnanswered.requests || bytes > maxUnanswered.bytes
    if (isTooMuch || server.writableNeedDrain) server.pause()
    else if (server.isPaused()) server.resume()
  }

  async function receive(frame: Frame): Promise<void> {
    const { length } = frame.body
    unanswered.requests += 1
    unanswered.bytes += length
    await signer.receive(frame)
    unanswered.requests -= 1
    unanswered.bytes -= length
    readOrRest()
  }

  /**
   * Modules hang or crash in their exit handlers often enough; once C_Finalize has returned, or will not,
   * nothing is gained by running them.
   */
  async function end(): Promise<never> {
    stop.abort()
    const finalized = signer.close().catch(() => undefined)
    await Promise.race([finalized, clock.sleep(finalizeLimit, new AbortController().signal)])
    process.kill(process.pid, 'SIGKILL')
    return new Promise(() => undefined)
  }

  server.on('data', (chunk: Uint8Array) => {
    try {
      for (const frame of reader.read(chunk)) void receive(frame)
      readOrRest()
    } catch (error) {
      server.destroy(error as Error)
    }
  })
  server.on('drain', readOrRest)
  server.on('error', () => undefined) // 'close' follows
  server.on('close', () => void end())
}
