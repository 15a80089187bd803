import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseEndpoint } from './endpoint.ts'

describe('parseEndpoint() takes only what the standard allows (E11, E12, E13)', () => {
  for (const [text, endpoint] of [
    [
      'unix:///run/spire/agent/public/api.sock',
      { kind: 'unix', path: '/run/spire/agent/public/api.sock' },
    ],
    ['unix:///tmp/with%20space', { kind: 'unix', path: '/tmp/with space' }],
    [`unix:///${'x'.repeat(106)}`, { kind: 'unix', path: `/${'x'.repeat(106)}` }],
    ['tcp://127.0.0.1:8000', { kind: 'tcp', address: '127.0.0.1', port: 8000 }],
    ['tcp://[::1]:65535', { kind: 'tcp', address: '::1', port: 65535 }],
  ] as const) {
    it(`accepts ${text.slice(0, 50)}`, () => assert.deepEqual(parseEndpoint(text), endpoint))
  }

  for (const [text, why] of [
    ['', /scheme/],
    ['/run/api.sock', /scheme/],
    ['http://127.0.0.1:80', /scheme/],
    ['UNIX:///run/api.sock', /scheme/],
    ['unix:', /unix:\/\/\//],
    ['unix:run/api.sock', /unix:\/\/\//],
    ['unix:/run/api.sock', /unix:\/\/\//],
    ['unix://host/run/api.sock', /unix:\/\/\//],
    ['unix:///', /names no socket/],
    ['unix:///run/', /names no socket/],
    ['unix:///run/api.sock?x=1', /query or fragment/],
    ['unix:///run/api.sock#f', /query or fragment/],
    ['unix:///run/%00', /null/],
    ['unix:///run/%zz', /%/],
    [`unix:///${'x'.repeat(107)}`, /107 bytes/],
    ['tcp://localhost:1', /not an IP address/],
    ['tcp://1.2.3.4', /tcp:\/\/IP:port/],
    ['tcp://1.2.3.4:1/x', /tcp:\/\/IP:port/],
    ['tcp://1.2.3.4:1?x', /tcp:\/\/IP:port/],
    ['tcp://user@1.2.3.4:1', /tcp:\/\/IP:port/],
    ['tcp:1.2.3.4:1', /tcp:\/\/IP:port/],
    ['tcp://::1:1', /tcp:\/\/IP:port/],
    ['tcp://[1.2.3.4]:1', /not an IP address/],
    ['tcp://1.2.3.4:0', /not a port/],
    ['tcp://1.2.3.4:65536', /not a port/],
  ] as const) {
    it(`refuses '${text.slice(0, 40)}'`, () => {
      assert.throws(() => parseEndpoint(text), { name: 'SyntaxError', message: why })
    })
  }
})
