import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import type { AuthorityProcessLine, AuthorityProcessOptions } from './authority-process.ts'

const program = new URL('./authority-process.ts', import.meta.url).pathname
const startSeconds = Temporal.Instant.from('2026-01-01T00:00:00Z').epochMilliseconds / 1000
const serveWithinMs = 5000

interface Ended {
  readonly signal: string | null
  readonly lines: readonly AuthorityProcessLine[]
  readonly tookMs: number
}

async function run(options: AuthorityProcessOptions): Promise<Ended> {
  const started = performance.now()
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [program, JSON.stringify(options)],
      { encoding: 'utf8' },
      (error, stdout, stderr) => {
        const signal = error?.signal ?? null
        if (error !== null && signal === null) return reject(new Error(stderr, { cause: error }))
        const lines = stdout.trimEnd().split('\n')
        resolve({
          signal,
          lines: lines.filter((line) => line !== '').map((line) => JSON.parse(line)),
          tookMs: performance.now() - started,
        })
      },
    )
  })
}

async function inDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'assay-authority-'))
  try {
    return await work(directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** Each of them has its own name and number, so that one that fails can be tried alone. */
const points = await inDirectory(async (directory) => {
  const { lines } = await run({ directory, task: 'live', killAt: 0, startSeconds })
  return lines.flatMap((line) => ('point' in line ? [line.point] : []))
})
/** Odd, so that both ends of calls are among them. */
const everyNth = 9
/** How often the process dies at each point: 25 for the whole figure. */
const runs = Number(process.env['ASSAY_FAULT_RUNS'] ?? 1)

test('the life that is killed has enough points', () => {
  assert.ok(points.length / everyNth >= 12, `${points.length} points`)
})

for (let killAt = 1; killAt <= points.length; killAt += everyNth) {
  test(`kill -9 at ${points[killAt - 1]}: the next start serves within 5 s, and nothing is lost (R1)`, async () => {
    for (let i = 0; i < runs; i++) await dieAt(killAt)
  })
}

async function dieAt(killAt: number): Promise<void> {
  await inDirectory(async (directory) => {
    const killed = await run({ directory, task: 'live', killAt, startSeconds })
    assert.equal(killed.signal, 'SIGKILL')
    let now = startSeconds
    let signer: AuthorityProcessLine | undefined
    let prepared = ''
    for (const line of killed.lines) {
      if ('point' in line) now = line.nowSeconds
      else if ('prepared' in line) prepared = line.prepared
      else signer = line
    }
    const next = await run({ directory, task: 'check', killAt: 0, startSeconds: now })
    assert.equal(next.signal, null)
    assert.ok(next.tookMs < serveWithinMs, `it took ${Math.round(next.tookMs)} ms`)
    const served = next.lines.find((line) => 'issuedBy' in line)
    assert.ok(served, 'it issued nothing')
    const again = await run({ directory, task: 'check', killAt: 0, startSeconds: now })
    const servedAgain = again.lines.find((line) => 'issuedBy' in line)
    assert.deepEqual(servedAgain, served, 'it goes on with the same authority')
    // Nothing is rotated in the instant between death and restart but what the dead server had begun.
    if (signer !== undefined && 'issuedBy' in signer && signer.expiresAtSeconds > now) {
      assert.ok([signer.issuedBy, prepared].includes(served.issuedBy), 'a stranger signs')
    }
  })
}
