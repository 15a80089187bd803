/**
 * assay-signer, as the server starts it: with a socket as descriptor 3, and asked for the token that the server's
 * configuration names. What the module prints goes to the server's log, since descriptors 1 and 2 are no part of the
 * protocol.
 */
import { serveSigner } from './serve.ts'

// The server hears these too, finishes its work and closes the socket.
process.on('SIGINT', () => undefined)
process.on('SIGTERM', () => undefined)

serveSigner((request) => request)
