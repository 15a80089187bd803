import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lookEveryMs, Silence } from './silence.ts'

interface Token {
  readonly usualMs: number
  readonly everyMs: number
  readonly diesAtMs?: number
}

/** When a token that answers every `everyMs`, and never after `diesAtMs`, is first taken for silent. */
function firstSilenceMs({ usualMs, everyMs, diesAtMs = Infinity }: Token): number | undefined {
  const silence = new Silence(usualMs)
  for (let now = 0; now < 60_000; now += lookEveryMs) {
    const answered = Math.floor(Math.min(now, diesAtMs) / everyMs)
    if (silence.look(1, answered)) return now
  }
  return undefined
}

test('Silence is noticed within 0.75 seconds of the last answer of a fast token', () => {
  for (const everyMs of [1, 25, 100, 150]) {
    const noticedMs = firstSilenceMs({ usualMs: 1, everyMs, diesAtMs: 10_000 }) ?? Infinity
    assert.ok(noticedMs >= 10_450 && noticedMs <= 10_750, `${everyMs}: ${noticedMs}`)
  }
})

test('Silence is not a token that takes half a second, whatever it took before', () => {
  for (const usualMs of [1, 500]) {
    for (const everyMs of [25, 300, 500, 599]) {
      assert.equal(firstSilenceMs({ usualMs, everyMs }), undefined)
    }
  }
})

test('Silence is noticed later of a token that is known to be slow, but within two seconds', () => {
  for (const [usualMs, withinMs] of [
    [500, 1200],
    [900, 2000],
    [5000, 2200],
  ] as const) {
    assert.equal(firstSilenceMs({ usualMs, everyMs: Math.min(usualMs, 1900) }), undefined)
    const noticedMs = firstSilenceMs({ usualMs, everyMs: 100, diesAtMs: 10_000 }) ?? Infinity
    assert.ok(noticedMs <= 10_000 + withinMs, `${usualMs}: ${noticedMs}`)
  }
})

test('Silence is over with the next answer', () => {
  const silence = new Silence(1)
  for (let i = 0; i < 10; i++) silence.look(1, 7)
  assert.equal(silence.look(1, 7), true)
  assert.equal(silence.look(1, 8), false)
})

test('Silence is nobody’s fault when nothing is owed, or only since the last look', () => {
  const silence = new Silence(1)
  for (let i = 0; i < 100; i++) assert.equal(silence.look(0, 7), false)
  for (let i = 0; i < 100; i++) assert.equal(silence.look(i % 2, 7), false)
})
