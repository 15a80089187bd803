import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { firstOpened, joinSealed, splitSealed } from './sealed-parts.ts'

const [one, two] = [Uint8Array.of(1, 2, 3), new Uint8Array(300).fill(7)]

test('splitSealed() gives what joinSealed() was given, and takes anything else for one part', () => {
  assert.deepEqual(splitSealed(joinSealed([one])), [one])
  const both = joinSealed([one, two])
  assert.deepEqual(splitSealed(both), [one, two])
  assert.deepEqual(splitSealed(new Uint8Array()), [new Uint8Array()])
  const ends = new Set([8, 8 + 2 + one.length, both.length])
  for (let length = 0; length < both.length; length++) {
    const cut = both.subarray(0, length)
    if (!ends.has(length)) assert.deepEqual(splitSealed(cut), [cut], `${length} bytes`)
  }
  // Where it lies in a larger buffer changes nothing.
  const moved = new Uint8Array(both.length + 5)
  moved.set(both, 5)
  assert.deepEqual(splitSealed(moved.subarray(5)), [one, two])
})

test('firstOpened() tells of one that is away before it says that none opens it', async () => {
  const away = new AssayError('unavailable', 'the token is away')
  const foreign = new AssayError('failed-precondition', 'another key sealed it')
  const fails = (error: Error) => () => Promise.reject(error)
  assert.deepEqual(await firstOpened([fails(away), async () => one]), one)
  await assert.rejects(firstOpened([fails(foreign), fails(away), fails(foreign)]), away)
  await assert.rejects(firstOpened([fails(foreign)]), foreign)
  await assert.rejects(firstOpened([]), { code: 'failed-precondition' })
})
