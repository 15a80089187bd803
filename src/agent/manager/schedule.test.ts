import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Schedule } from './schedule.ts'

test('Schedule.takeDue() takes what is due, earliest first, and leaves the rest', () => {
  const schedule = new Schedule<string>()
  for (const [key, at] of [
    ['c', 30],
    ['a', 10],
    ['d', 40],
    ['b', 20],
  ] as const) {
    schedule.set(key, at)
  }
  assert.equal(schedule.nextMs(), 10)
  assert.deepEqual(schedule.takeDue(30), ['a', 'b', 'c'])
  assert.equal(schedule.nextMs(), 40)
  assert.equal(schedule.size, 1)
})

test('Schedule.set() replaces the time of a key, earlier or later', () => {
  const schedule = new Schedule<string>()
  schedule.set('a', 10)
  schedule.set('b', 20)
  schedule.set('a', 30)
  assert.deepEqual(schedule.takeDue(20), ['b'])
  schedule.set('a', 5)
  assert.deepEqual(schedule.takeDue(5), ['a'])
  assert.equal(schedule.nextMs(), undefined)
})

test('Schedule.delete() makes a key never due', () => {
  const schedule = new Schedule<string>()
  schedule.set('a', 10)
  assert.equal(schedule.timeOf('a'), 10)
  schedule.delete('a')
  assert.equal(schedule.timeOf('a'), undefined)
  assert.equal(schedule.has('a'), false)
  assert.equal(schedule.nextMs(), undefined)
  assert.deepEqual(schedule.takeDue(100), [])
})

test('Schedule.takeDue() honours its limit', () => {
  const schedule = new Schedule<number>()
  for (let i = 0; i < 10; i += 1) schedule.set(i, i)
  assert.deepEqual(schedule.takeDue(100, 3), [0, 1, 2])
  assert.equal(schedule.size, 7)
})

test('Schedule keeps its order over thousands of replaced times', () => {
  const schedule = new Schedule<number>()
  const expected = new Map<number, number>()
  let state = 1
  for (let i = 0; i < 20_000; i += 1) {
    // A linear congruential generator (Numerical Recipes): the same sequence at each run.
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32
    const key = state % 500
    schedule.set(key, state)
    expected.set(key, state)
  }
  const order = [...expected].sort(([, a], [, b]) => a - b).map(([key]) => key)
  assert.deepEqual(schedule.takeDue(2 ** 32), order)
})
