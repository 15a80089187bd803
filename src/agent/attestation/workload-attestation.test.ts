import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { silentLog } from '#base/log.ts'
import { closePidfd, openPidfd, readStartTime } from '#host/process.ts'
import type { UnixPeer } from '#rpc/call.ts'
import { selector } from '#spiffe/selector.ts'
import { Metrics } from '#telemetry/metrics.ts'
import type { WorkloadAttestor } from '../plugin/workload-attestor/workload-attestor.ts'
import { holdProcess } from './local-process.ts'
import { WorkloadAttestation } from './workload-attestation.ts'

const never = new AbortController().signal
const metrics = new Metrics()

function attestor(type: string, outcome: 'ok' | Error): WorkloadAttestor {
  return {
    type,
    attest: async () => {
      if (outcome instanceof Error) throw outcome
      return [selector(type, 'b'), selector(type, 'a'), selector(type, 'b')]
    },
  }
}

const attestation = (...attestors: WorkloadAttestor[]): WorkloadAttestation =>
  new WorkloadAttestation({ attestors, metrics, log: silentLog })

/** The test itself, as the kernel would vouch for it. */
function ownPeer(over: Partial<UnixPeer> = {}): UnixPeer {
  return {
    kind: 'unix',
    pid: process.pid,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    pidfd: undefined,
    startTime: readStartTime(process.pid),
    ...over,
  }
}

test('WorkloadAttestation.attestPeer() gives the selectors sorted, each once', async () => {
  assert.deepEqual(await attestation(attestor('x', 'ok')).attestPeer(ownPeer(), never), [
    'x:a',
    'x:b',
  ])
})

test('WorkloadAttestation.attestPeer() passes a failing attestor over, unless all of them fail', async () => {
  const broken = attestor('broken', new Error('no daemon'))
  const some = attestation(broken, attestor('x', 'ok'))
  assert.deepEqual(await some.attestPeer(ownPeer(), never), ['x:a', 'x:b'])
  for (const none of [attestation(broken), attestation(broken, broken), attestation()]) {
    await assert.rejects(none.attestPeer(ownPeer(), never), {
      code: 'unavailable',
      reason: 'workload-attestation-failed',
    })
  }
})

test('WorkloadAttestation.attestPeer() refuses when one attestor does, whatever the others say', async () => {
  const refusing = attestor(
    'refusing',
    new AssayError('permission-denied', 'replaced', { reason: 'workload-changed' }),
  )
  await assert.rejects(attestation(attestor('x', 'ok'), refusing).attestPeer(ownPeer(), never), {
    code: 'permission-denied',
    reason: 'workload-changed',
  })
})

test('WorkloadAttestation.attestPeer() refuses a number that belongs to another process now', async () => {
  const reused = ownPeer({ startTime: readStartTime(process.pid) - 1n })
  await assert.rejects(attestation(attestor('x', 'ok')).attestPeer(reused, never), {
    code: 'permission-denied',
    reason: 'workload-gone',
  })
})

test('WorkloadAttestation.attestPeer() refuses a peer that the kernel could not name', async () => {
  for (const unnamed of [ownPeer({ startTime: 0n }), ownPeer({ pid: 0, startTime: 0n })]) {
    await assert.rejects(attestation(attestor('x', 'ok')).attestPeer(unnamed, never), {
      reason: 'workload-gone',
    })
  }
})

test('WorkloadAttestation.attestPeer() refuses a process that ends while it is looked at', async () => {
  const child = spawn('/bin/sleep', ['60'])
  await once(child, 'spawn')
  const pid = child.pid ?? 0
  const pidfd = openPidfd(pid)
  const peer = ownPeer({ pid, pidfd, startTime: readStartTime(pid) })
  const deadly: WorkloadAttestor = {
    type: 'x',
    attest: async () => {
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
      return [selector('x', 'a')]
    },
  }
  await assert.rejects(attestation(deadly).attestPeer(peer, never), { reason: 'workload-gone' })
  closePidfd(pidfd)
})

test('WorkloadAttestation.attestPeer() refuses who is not local', async () => {
  const remote = { kind: 'tls', address: '192.0.2.1' } as never
  await assert.rejects(attestation(attestor('x', 'ok')).attestPeer(remote, never), {
    reason: 'workload-not-local',
  })
})

test('holdProcess() holds a process that runs, and no other', async () => {
  using held = holdProcess(process.pid)
  assert.equal(held.uid, process.geteuid?.())
  held.assertSame()
  const child = spawn('/bin/true')
  await once(child, 'exit')
  assert.throws(() => holdProcess(child.pid ?? 0), { code: 'not-found' })
})
