import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { activatedSockets } from './socket-activation.ts'

describe('activatedSockets()', () => {
  for (const [title, environment, sockets] of [
    ['is empty without activation', {}, []],
    ['is empty for another process', { LISTEN_PID: '8', LISTEN_FDS: '1' }, []],
    ['counts from descriptor 3', { LISTEN_PID: '7', LISTEN_FDS: '2' }, [['unknown', [3, 4]]]],
    [
      'goes by names',
      { LISTEN_PID: '7', LISTEN_FDS: '3', LISTEN_FDNAMES: 'api:admin:api' },
      [
        ['api', [3, 5]],
        ['admin', [4]],
      ],
    ],
  ] as const) {
    it(title, () => assert.deepEqual([...activatedSockets(environment, 7)], sockets))
  }

  for (const LISTEN_FDS of ['65', '-1', '1e3', 'x', '']) {
    it(`refuses LISTEN_FDS '${LISTEN_FDS}'`, () => {
      assert.throws(() => activatedSockets({ LISTEN_PID: '7', LISTEN_FDS }, 7), RangeError)
    })
  }
})
