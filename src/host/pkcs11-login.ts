import { hostAddon } from './native.ts'

/**
 * C_Login as CKU_USER (PKCS#11 v2.40 §5.6) in a module this process has loaded already, with a PIN that is bytes: no
 * copy of it is made on the way, so that who wipes those bytes has wiped all there is.
 *
 * @param session the handle, a CK_ULONG in memory order.
 * @returns CKR_…: 0 for success.
 * @throws Error when no module has been loaded from that path.
 */
export function pkcs11Login(modulePath: string, session: Uint8Array, pin: Uint8Array): number {
  return hostAddon().pkcs11Login(modulePath, session, pin)
}
