import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { connectEndpoint } from './connect-endpoint.ts'

const clock = new FakeClock()

test('connectEndpoint() takes the path of a Unix socket', () => {
  using connection = connectEndpoint('unix:///run/a%20b.sock', clock)
  assert.equal(connection.address, 'unix:///run/a b.sock')
})

test('connectEndpoint() refuses TCP, which does not tell local processes apart', () => {
  assert.throws(() => connectEndpoint('tcp://127.0.0.1:8000', clock), RangeError)
})

test('connectEndpoint() refuses what is no endpoint', () => {
  for (const wrong of ['', '/run/a.sock', 'unix:a.sock', 'http://127.0.0.1'])
    assert.throws(() => connectEndpoint(wrong, clock), SyntaxError, wrong)
})
