import assert from 'node:assert/strict'
import { test } from 'node:test'
import { below, seeded } from '../../test/support/seeded.ts'
import { dateOf, daysOf } from './calendar.ts'

const epoch = Temporal.PlainDate.from('1970-01-01')

test('dateOf() and daysOf() agree with Temporal', () => {
  const random = seeded(10)
  const check = (days: number): void => {
    const { year, month, day } = epoch.add({ days })
    assert.deepEqual(dateOf(days), { year, month, day })
    assert.equal(daysOf({ year, month, day }), days)
  }
  for (let days = -10_000; days < 50_000; days++) check(days)
  const last = epoch.until('9999-12-31').days
  for (let i = 0; i < 10_000; i++) check(below(random, last))
  for (const days of [last, -719162]) check(days)
})

test('daysOf() knows the length of every month', () => {
  for (const year of [1900, 2000, 2023, 2024, 2100, 9999]) {
    for (let month = 1; month <= 12; month++) {
      const length = Temporal.PlainYearMonth.from({ year, month }).daysInMonth
      for (let day = 1; day <= 31; day++) {
        assert.equal(daysOf({ year, month, day }) !== undefined, day <= length)
      }
    }
  }
  for (const date of [
    { year: 2026, month: 0, day: 1 },
    { year: 2026, month: 13, day: 1 },
    { year: 2026, month: 1, day: 0 },
    { year: 2026, month: 1, day: 32 },
  ]) {
    assert.equal(daysOf(date), undefined)
  }
})
